"""Normalized rows get the codes of the reference, but where its own rounding decides which of two is nearer."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.operands import ByteGrid, Codes8, Grid, TokenGrid
from protquant.kernels.reference import norm as reference
from protquant.kernels.reference.backend import ReferenceBackend
from protquant.kernels.reference.piecewise_bytes import decode_tailed_bytes, encode_tailed_bytes
from protquant.kernels.triton.norm import decode_norm_quantize, layer_norm_quantize
from protquant.quant.formats import TailedGrid

SIZES = (1, 3, 17, 127, 129, 200)
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
GRID, EPS = Grid(0.02, -3, -128, 127), 1e-5
TOKENS = (TokenGrid(8, symmetric=True), TokenGrid(8, symmetric=False))
KEPT = ByteGrid(*TailedGrid.asymmetric(7, (-56.0, 906.0), (-3.0, 5.0)))


def assert_nearest(found: Codes8, y: Tensor, limits: tuple[int, int]) -> None:
    """Codes are nearest to `y`, float64, on their grid; within 1e-3 of a tie either of two is."""
    assert found.data.dtype == torch.int8
    steps = (y / found.scale.double()[:, None] + found.zero[:, None]).clamp(*limits)
    assert float((found.data - steps).abs().max()) <= 0.501


def assert_tokens(found: Codes8, y: Tensor, grid: TokenGrid) -> None:
    """Scales and zero points are those of the rows, and codes are nearest."""
    low, high = y.amin(1).clamp(max=0), y.amax(1).clamp(min=0)
    signed = grid.symmetric and bool((low < 0).any())
    span = torch.maximum(-low, high) / 127 if signed else (high - low) / 255
    torch.testing.assert_close(found.scale, torch.where(span > 0, span, 1.0).float(), rtol=1e-5, atol=0)
    assert float((found.zero + (0 if signed else 128 + low / span)).abs().max()) <= 0.501
    assert_nearest(found, y, (-127, 127) if signed else (-128, 127))


def rows_of(m: int, c: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Floats, gain and bias, and what is due in float64."""
    torch.manual_seed(m * c)
    x = (5 * torch.randn(m, 2 * c) + 3)[:, :c].to(FLOATS[(m + c) % 3])
    gain, bias = torch.randn(c), torch.randn(c)
    return x, gain, bias, F.layer_norm(x.double(), (c,), gain.double(), bias.double(), EPS)


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("c", SIZES)
def test_floats_get_the_nearest_codes(m: int, c: int):
    x, gain, bias, y = rows_of(m, c)
    codes = layer_norm_quantize(x, gain, bias, EPS, GRID)
    assert_nearest(codes, y, (-128, 127))
    expected = ReferenceBackend().normalized_codes(x.float(), gain, bias, EPS, GRID)
    assert float((codes.data != expected.data).float().mean()) <= 0.001
    for grid in TOKENS:
        assert_tokens(layer_norm_quantize(x, gain, bias, EPS, grid), y, grid)


@pytest.mark.parametrize("m", [1, 17, 129])
@pytest.mark.parametrize("c", SIZES)
def test_bytes_get_the_codes_of_what_they_decode_to(m: int, c: int):
    x, gain, bias, _ = rows_of(m, c)
    every = encode_tailed_bytes(torch.cat((10 * x, x), dim=1).float(), KEPT)
    kept, dtype = every[:, :c], FLOATS[m % 3]  # strided rows
    floats = decode_tailed_bytes(kept, KEPT)
    for grid in (GRID, *TOKENS):
        found, normalized = decode_norm_quantize(kept, KEPT, gain, bias, EPS, grid, normalized=dtype)
        expected = layer_norm_quantize(floats, gain, bias, EPS, grid)
        # On a GPU bytes lie in other threads than floats do, and rows are summed in another order.
        torch.testing.assert_close(found.scale, expected.scale, rtol=1e-6, atol=0)
        assert float((found.data != expected.data).float().mean()) <= 0.001
        _, due = reference.decode_norm_quantize(kept, KEPT, gain, bias, EPS, grid, normalized=dtype)
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(normalized, due, rtol=max(2 * eps, 1e-5), atol=max(eps / 100, 1e-5))
        alone, nothing = decode_norm_quantize(kept, KEPT, gain, bias, EPS, grid)
        assert nothing is None and torch.equal(alone.data, found.data)


def test_limits_are_kept_and_gains_may_be_absent():
    x, gain, bias, y = rows_of(17, 129)
    assert_nearest(layer_norm_quantize(x, gain, bias, EPS, Grid(0.02, 0, -7, 7)), y, (-7, 7))
    plain = F.layer_norm(x.double(), (129,), None, None, EPS)
    assert_nearest(layer_norm_quantize(x, None, None, EPS, GRID), plain, (-128, 127))
    assert_nearest(layer_norm_quantize(x, None, bias, EPS, GRID), plain + bias, (-128, 127))


def test_rows_far_from_0_keep_their_variance():
    torch.manual_seed(0)
    x = torch.randint(-50, 50, (3, 127)).float() + 2.0**15  # exact in float32
    y = F.layer_norm(x.double(), (127,))
    # The mean, 2^15, is rounded by up to 2^-9 of a variance of 29^2: 1e-4 of a step of 0.02.
    assert_nearest(layer_norm_quantize(x, None, None, EPS, GRID), y, (-128, 127))


@pytest.mark.parametrize("m", [1, 17, 129])
def test_channels_may_lie_apart_as_those_of_a_triangle_multiplication_do(m: int):
    x, gain, bias, y = rows_of(m, 127)
    turned = x.float().T.contiguous().T
    assert_nearest(layer_norm_quantize(turned, gain, bias, EPS, GRID), y, (-128, 127))
    assert_tokens(layer_norm_quantize(turned, gain, bias, EPS, TOKENS[0]), y, TOKENS[0])


@pytest.mark.parametrize("grid", [GRID, *TOKENS])
def test_no_rows_give_no_rows(grid: Grid | TokenGrid):
    codes = layer_norm_quantize(torch.zeros(0, 17), None, None, EPS, grid)
    assert codes.data.shape == (0, 17) and len(codes.scale) == (1 if grid is GRID else 0)
    kept = torch.zeros(0, 17, dtype=torch.uint8)
    codes, normalized = decode_norm_quantize(kept, KEPT, None, None, EPS, grid, normalized=torch.float16)
    assert codes.data.shape == (0, 17) and normalized is not None and normalized.dtype == torch.float16


def test_operands_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="rows of no channels have no mean"):
        layer_norm_quantize(torch.zeros(3, 0), None, None, EPS, GRID)
    with pytest.raises(ValueError, match=r"bias has the shape \(3,\), and rows have 17 channels"):
        layer_norm_quantize(torch.zeros(3, 17), None, torch.zeros(3), EPS, TOKENS[0])
    with pytest.raises(ValueError, match=r"codes must be bytes \(uint8\), not torch.float32"):
        decode_norm_quantize(torch.zeros(3, 17), KEPT, None, None, EPS, GRID)
