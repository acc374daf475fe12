"""Int8 codes of rows and of pairs of rows are exactly those of the references."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.reference import outer as reference_outer
from protquant.kernels.reference import quantize as reference
from protquant.kernels.reference.quantize import TokenCodes
from protquant.kernels.triton.outer import outer_quantize
from protquant.kernels.triton.quantize import quantize_int8, quantize_int8_per_token

SIZES = (1, 3, 17, 127, 129, 200)
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
SCALE, ZERO = torch.tensor([0.05]), torch.tensor([-3], dtype=torch.int32)


def assert_same_rows(found: TokenCodes, expected: TokenCodes) -> None:
    for one, other in zip(found, expected, strict=True):
        if other is None:
            assert one is None
        else:
            assert one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("c", SIZES)
def test_codes_are_those_of_the_reference(m: int, c: int):
    torch.manual_seed(m * c)
    dtype = FLOATS[(m + c) % 3]
    x = (4 * torch.randn(m, 2 * c))[:, :c].to(dtype)
    assert torch.equal(quantize_int8(x, SCALE, ZERO), reference.quantize_int8(x, SCALE, ZERO))
    for symmetric, rows in ((True, x), (False, x.T)):
        expected = reference.quantize_int8_per_token(rows, symmetric=symmetric)
        assert_same_rows(quantize_int8_per_token(rows, symmetric=symmetric), expected)


@pytest.mark.parametrize("limits", [(-128, 127), (-127, 127), (-7, 7), (0, 100)])
def test_ties_and_what_lies_outside(limits: tuple[int, int]):
    halves = torch.arange(-600, 601)[None, :] * 0.25
    x = torch.cat((halves, torch.tensor([[-3e38, 3e38]])), dim=1)
    for zero in (None, ZERO, 30_000 + ZERO):
        codes = quantize_int8(x, torch.tensor([0.5]), zero, *limits)
        assert torch.equal(codes, reference.quantize_int8(x, torch.tensor([0.5]), zero, *limits))
        assert bool((codes >= limits[0]).all()) and bool((codes <= limits[1]).all())


@pytest.mark.parametrize("symmetric", [True, False])
def test_rows_of_all_kinds_have_steps_of_their_own(symmetric: bool):
    torch.manual_seed(0)
    x = torch.randn(60, 33) * torch.logspace(-30, 30, 60)[:, None]
    x[0], x[1], x[2], x[3] = 0.0, 1e-39, x[2].abs(), -x[3].abs()
    found = quantize_int8_per_token(x, symmetric=symmetric)
    assert_same_rows(found, reference.quantize_int8_per_token(x, symmetric=symmetric))
    assert found.scales[:2].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_symmetric_rows_that_are_never_negative_have_codes_without_a_sign(bits: int):
    torch.manual_seed(0)
    x = torch.randn(17, 33)
    for rows in (x, x.abs(), x.abs() - 1e-4 * torch.eye(17, 33)[16:], 0 * x, x[:0], x[:, :0]):
        found = quantize_int8_per_token(rows, bits=bits, unsigned=True)
        assert_same_rows(found, reference.quantize_int8_per_token(rows, bits=bits, unsigned=True))
    without_sign = quantize_int8_per_token(x.abs(), bits=bits, unsigned=True)
    assert_same_rows(without_sign, reference.quantize_int8_per_token(x.abs(), symmetric=False, bits=bits))
    assert int(without_sign.codes.max()) - int(without_sign.zeros.min()) == 2**bits - 1
    with pytest.raises(ValueError, match="2 to 8 bits, not 9"):
        quantize_int8_per_token(x, bits=9)


def test_hidden_layers_of_the_largest_language_model_fit():
    torch.manual_seed(0)
    x = torch.randn(2, 20_480)
    expected = reference.quantize_int8_per_token(x, symmetric=False)
    assert_same_rows(quantize_int8_per_token(x, symmetric=False), expected)
    with pytest.raises(ValueError, match="rows of 32769 channels do not fit into registers"):
        quantize_int8(torch.zeros(1, 32_769), SCALE)


def test_nothing_gives_nothing():
    for shape in ((0, 17), (3, 0), (0, 0)):
        x = torch.zeros(shape)
        assert quantize_int8(x, SCALE).shape == shape
        for symmetric in (True, False):
            expected = reference.quantize_int8_per_token(x, symmetric=symmetric)
            assert_same_rows(quantize_int8_per_token(x, symmetric=symmetric), expected)
        assert torch.equal(outer_quantize(x, x, SCALE), reference_outer.outer_quantize(x, x, SCALE))


@pytest.mark.parametrize("length", SIZES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_pairs_are_those_of_the_reference(length: int, dtype: torch.dtype):
    torch.manual_seed(length)
    channels = SIZES[length % 5]
    q, k = torch.randn(length, 2 * channels).to(dtype).chunk(2, dim=-1)
    rows: Tensor = k[: max(length // 60, 1)]
    for zero in (None, ZERO):
        expected = reference_outer.outer_quantize(q, rows, SCALE, zero)
        assert torch.equal(outer_quantize(q, rows, SCALE, zero), expected)


def test_pairs_of_all_residues():
    torch.manual_seed(0)
    q, k = torch.randn(17, 29), torch.randn(29, 17).T
    assert torch.equal(outer_quantize(q, k, SCALE), reference_outer.outer_quantize(q, k, SCALE))
