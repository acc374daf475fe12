"""Normalized rows get the codes of the reference, but where its own rounding decides which of two is nearer."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.operands import ByteGrid
from protquant.kernels.reference import norm as reference
from protquant.kernels.reference.piecewise_bytes import decode_tailed_bytes, encode_tailed_bytes
from protquant.kernels.reference.quantize import TokenCodes
from protquant.kernels.triton.norm import (
    decode_norm_quantize,
    decode_norm_quantize_per_token,
    layer_norm_quantize,
    layer_norm_quantize_per_token,
)
from protquant.quant.formats import TailedGrid

SIZES = (1, 3, 17, 127, 129, 200)
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
SCALE, ZERO, EPS = torch.tensor([0.02]), torch.tensor([-3], dtype=torch.int32), 1e-5
GRID = ByteGrid(*TailedGrid.asymmetric(7, (-56.0, 906.0), (-3.0, 5.0)))


def assert_nearest(codes: Tensor, y: Tensor, scales: Tensor, zeros: Tensor | int, limits: tuple[int, int]) -> None:
    """Codes are nearest to `y`, float64, on grids of rows; within 1e-3 of a tie either of two is."""
    assert codes.dtype == torch.int8
    steps = (y / scales.double() + zeros).clamp(*limits)
    assert float((codes - steps).abs().max()) <= 0.501


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
    codes = layer_norm_quantize(x, gain, bias, EPS, SCALE, ZERO)
    assert_nearest(codes, y, SCALE, ZERO, (-128, 127))
    expected = reference.layer_norm_quantize(x, gain, bias, EPS, SCALE, ZERO)
    assert float((codes != expected).float().mean()) <= 0.001
    assert_tokens(layer_norm_quantize_per_token(x, gain, bias, EPS), y, symmetric=True)
    assert_tokens(layer_norm_quantize_per_token(x, gain, bias, EPS, symmetric=False), y, symmetric=False)


def assert_tokens(found: TokenCodes, y: Tensor, symmetric: bool) -> None:
    codes, scales, zeros = found
    low, high = y.amin(1).clamp(max=0), y.amax(1).clamp(min=0)
    span = torch.maximum(-low, high) / 127 if symmetric else (high - low) / 255
    torch.testing.assert_close(scales, span.float(), rtol=1e-5, atol=0)
    if symmetric:
        assert zeros is None
        assert_nearest(codes, y, scales[:, None], 0, (-127, 127))
    else:
        assert zeros is not None and zeros.dtype == torch.int32
        assert float((zeros + 128 + low / span).abs().max()) <= 0.501
        assert_nearest(codes, y, scales[:, None], zeros[:, None], (-128, 127))


@pytest.mark.parametrize("m", [1, 17, 129])
@pytest.mark.parametrize("c", SIZES)
def test_bytes_get_the_codes_of_what_they_decode_to(m: int, c: int):
    x, gain, bias, _ = rows_of(m, c)
    every = encode_tailed_bytes(torch.cat((10 * x, x), dim=1).float(), GRID)
    codes = every[:, :c]  # strided rows
    floats = decode_tailed_bytes(codes, GRID)
    dtype = FLOATS[m % 3]
    found, normalized = decode_norm_quantize(codes, GRID, gain, bias, EPS, SCALE, ZERO, normalized=dtype)
    assert float((found != layer_norm_quantize(floats, gain, bias, EPS, SCALE, ZERO)).float().mean()) <= 0.001
    _, expected = reference.decode_norm_quantize(codes, GRID, gain, bias, EPS, SCALE, normalized=dtype)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(normalized, expected, rtol=max(2 * eps, 1e-5), atol=max(eps / 100, 1e-5))
    for symmetric in (True, False):
        tokens, nothing = decode_norm_quantize_per_token(codes, GRID, gain, bias, EPS, symmetric=symmetric)
        assert nothing is None
        of_floats = layer_norm_quantize_per_token(floats, gain, bias, EPS, symmetric=symmetric)
        # On a GPU bytes lie in other threads than floats do, and rows are summed in another order.
        torch.testing.assert_close(tokens.scales, of_floats.scales, rtol=1e-6, atol=0)
        assert float((tokens.codes != of_floats.codes).float().mean()) <= 0.001
    tokens, normalized = decode_norm_quantize_per_token(codes, GRID, gain, bias, EPS, normalized=torch.float32)
    assert_tokens(tokens, normalized.double(), symmetric=True)


def test_limits_are_kept_and_gains_may_be_absent():
    x, gain, bias, y = rows_of(17, 129)
    codes = layer_norm_quantize(x, gain, bias, EPS, SCALE, None, -7, 7)
    assert_nearest(codes, y, SCALE, 0, (-7, 7))
    plain = F.layer_norm(x.double(), (129,), None, None, EPS)
    assert_nearest(layer_norm_quantize(x, None, None, EPS, SCALE), plain, SCALE, 0, (-128, 127))
    assert_nearest(layer_norm_quantize(x, None, bias, EPS, SCALE), plain + bias, SCALE, 0, (-128, 127))


def test_rows_far_from_0_keep_their_variance():
    torch.manual_seed(0)
    x = torch.randint(-50, 50, (3, 127)).float() + 2.0**15  # exact in float32
    y = F.layer_norm(x.double(), (127,))
    # The mean, 2^15, is rounded by up to 2^-9 of a variance of 29^2: 1e-4 of a step of 0.02.
    assert_nearest(layer_norm_quantize(x, None, None, EPS, SCALE), y, SCALE, 0, (-128, 127))


@pytest.mark.parametrize("m", [1, 17, 129])
def test_channels_may_lie_apart_as_those_of_a_triangle_multiplication_do(m: int):
    x, gain, bias, y = rows_of(m, 127)
    turned = x.float().T.contiguous().T
    assert_nearest(layer_norm_quantize(turned, gain, bias, EPS, SCALE, ZERO), y, SCALE, ZERO, (-128, 127))
    assert_tokens(layer_norm_quantize_per_token(turned, gain, bias, EPS), y, symmetric=True)


def test_no_rows_give_no_rows():
    x, codes = torch.zeros(0, 17), torch.zeros(0, 17, dtype=torch.uint8)
    assert layer_norm_quantize(x, None, None, EPS, SCALE).shape == (0, 17)
    tokens = layer_norm_quantize_per_token(x, None, None, EPS, symmetric=False)
    assert [tuple(each.shape) for each in tokens if each is not None] == [(0, 17), (0,), (0,)]
    quantized, normalized = decode_norm_quantize(codes, GRID, None, None, EPS, SCALE, normalized=torch.float16)
    assert quantized.shape == (0, 17) and normalized is not None and normalized.dtype == torch.float16
    assert decode_norm_quantize_per_token(codes, GRID, None, None, EPS)[0].codes.shape == (0, 17)


def test_operands_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="rows of no channels have no mean"):
        layer_norm_quantize(torch.zeros(3, 0), None, None, EPS, SCALE)
    with pytest.raises(ValueError, match=r"bias has the shape \(3,\), and rows have 17 channels"):
        layer_norm_quantize_per_token(torch.zeros(3, 17), None, torch.zeros(3), EPS)
    with pytest.raises(ValueError, match="codes must be a matrix of uint8"):
        decode_norm_quantize(torch.zeros(3, 17), GRID, None, None, EPS, SCALE)
