"""Int8 codes of rows and of pairs of rows are exactly those of the references."""

import pytest
import torch

pytest.importorskip("triton")

from protquant.kernels.operands import Codes8, Grid, TokenGrid
from protquant.kernels.reference.backend import ReferenceBackend
from protquant.kernels.reference.quantize import quantize
from protquant.kernels.triton.outer import outer_quantize
from protquant.kernels.triton.quantize import quantize_int8

SIZES = (1, 3, 17, 127, 129, 200)
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
GRID = Grid(0.05, -3, -128, 127)
TOKENS = [TokenGrid(bits, symmetric) for bits in (2, 4, 8) for symmetric in (True, False)]


def assert_same(found: Codes8, expected: Codes8) -> None:
    for one, other in zip(vars(found).values(), vars(expected).values(), strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("c", SIZES)
def test_codes_are_those_of_the_reference(m: int, c: int):
    torch.manual_seed(m * c)
    x = (4 * torch.randn(m, 2 * c))[:, :c].to(FLOATS[(m + c) % 3])
    for grid, rows in ((GRID, x), (TokenGrid(8, symmetric=True), x), (TokenGrid(8, symmetric=False), x.T)):
        assert_same(quantize_int8(rows, grid), quantize(rows, grid))


@pytest.mark.parametrize("limits", [(-128, 127), (-127, 127), (-7, 7), (0, 100)])
def test_ties_and_what_lies_outside(limits: tuple[int, int]):
    halves = torch.arange(-600, 601)[None, :] * 0.25
    x = torch.cat((halves, torch.tensor([[-3e38, 3e38]])), dim=1)
    for zero in (0, -3, 29_997):
        grid = Grid(0.5, zero, *limits)
        codes = quantize_int8(x, grid)
        assert_same(codes, quantize(x, grid))
        assert bool((codes.data >= limits[0]).all()) and bool((codes.data <= limits[1]).all())


@pytest.mark.parametrize("symmetric", [True, False])
def test_rows_of_all_kinds_have_steps_of_their_own(symmetric: bool):
    torch.manual_seed(0)
    x = torch.randn(60, 33) * torch.logspace(-30, 30, 60)[:, None]
    x[0], x[1], x[2], x[3] = 0.0, 1e-39, x[2].abs(), -x[3].abs()
    found = quantize_int8(x, TokenGrid(8, symmetric))
    assert_same(found, quantize(x, TokenGrid(8, symmetric)))
    assert found.scale[:2].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("grid", TOKENS)
def test_symmetric_rows_that_are_never_negative_have_codes_without_a_sign(grid: TokenGrid):
    torch.manual_seed(0)
    x = torch.randn(17, 33)
    for rows in (x, x.abs(), x.abs() - 1e-4 * torch.eye(17, 33)[16:], 0 * x, x[:0], x[:, :0]):
        assert_same(quantize_int8(rows, grid), quantize(rows, grid))
    without_sign = quantize_int8(x.abs(), grid)
    assert_same(without_sign, quantize_int8(x.abs(), TokenGrid(grid.bits, symmetric=False)))
    assert int(without_sign.data.max()) - int(without_sign.zero.min()) == 2**grid.bits - 1


def test_hidden_layers_of_the_largest_language_model_fit():
    torch.manual_seed(0)
    x = torch.randn(2, 20_480)
    assert_same(quantize_int8(x, TokenGrid(8, symmetric=False)), quantize(x, TokenGrid(8, symmetric=False)))
    with pytest.raises(ValueError, match="rows of 32769 channels do not fit into registers"):
        quantize_int8(torch.zeros(1, 32_769), GRID)


@pytest.mark.parametrize("shape", [(0, 17), (3, 0), (0, 0)])
def test_nothing_gives_nothing(shape: tuple[int, int]):
    x = torch.zeros(shape)
    for grid in (GRID, *TOKENS):
        assert_same(quantize_int8(x, grid), quantize(x, grid))
    assert_same(outer_quantize(x, x, GRID), ReferenceBackend().outer_codes(x, x, GRID))


@pytest.mark.parametrize("length", SIZES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_pairs_are_those_of_the_reference(length: int, dtype: torch.dtype):
    torch.manual_seed(length)
    channels = SIZES[length % 5]
    q, k = torch.randn(length, 2 * channels).to(dtype).chunk(2, dim=-1)
    rows = k[: max(length // 60, 1)]
    for grid in (GRID, Grid(0.05, 0, -128, 127)):
        expected = ReferenceBackend().outer_codes(q.float(), rows.float(), grid)
        assert_same(outer_quantize(q, rows, grid), expected)


def test_pairs_of_all_residues():
    torch.manual_seed(0)
    q, k = torch.randn(17, 29), torch.randn(29, 17).T
    assert_same(outer_quantize(q, k, GRID), ReferenceBackend().outer_codes(q, k, GRID))
    with pytest.raises(ValueError, match="q has 29 channels, and k has 3"):
        outer_quantize(q, k[:, :3], GRID)
