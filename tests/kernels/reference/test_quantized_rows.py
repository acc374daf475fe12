"""Rows become int8 codes as the formats of the simulation have it, by themselves and normalized from bytes."""

import pytest
import torch
import torch.nn.functional as F

from protquant.kernels.operands import ByteGrid, Grid, TokenGrid
from protquant.kernels.reference import decode_uniform, encode_token_outlier, encode_uniform, token_scale
from protquant.kernels.reference.norm import decode_norm_quantize
from protquant.kernels.reference.piecewise_bytes import decode_tailed_bytes, encode_tailed_bytes
from protquant.kernels.reference.quantize import quantize
from protquant.kernels.reference.token_outlier_rows import dequantize_token_outlier, quantize_token_outlier
from protquant.quant.formats import TailedGrid, Uniform

KEPT = ByteGrid(*TailedGrid.asymmetric(7, (-56.0, 906.0), (-3.0, 5.0)))


def test_one_scale_for_all_is_the_uniform_format():
    torch.manual_seed(0)
    x = 4 * torch.randn(5, 33)
    codes = quantize(x, Grid(0.05, 125, 28, 218))
    assert torch.equal(codes.data, encode_uniform(x, torch.tensor(0.05), torch.tensor(-3), -100, 90))
    assert (int(codes.data.min()), int(codes.data.max())) == (-100, 90)
    assert codes.zero.tolist() == [-3]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("negative", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
def test_steps_of_tokens_are_those_of_the_simulation(symmetric: bool, negative: bool, bits: int):
    torch.manual_seed(0)
    x = torch.randn(40, 33) * torch.logspace(-6, 6, 40)[:, None] + torch.randn(40, 1)
    x[3], x[4], x[5] = 0.0, x[4].abs(), -x[5].abs()
    x = x if negative else x.abs()
    codes = quantize(x, TokenGrid(bits, symmetric))
    assert codes.data.dtype == torch.int8 and codes.scale[3] == 1
    encoded = Uniform(bits, symmetric=symmetric, granularity="token").for_activation(None, None).encode(x)
    assert torch.equal(codes.scale, encoded.scales.flatten())
    move = 128 if bits == 8 and not (symmetric and negative) else 0
    zero_points = torch.zeros(40) if encoded.zero_points is None else encoded.zero_points.flatten()
    assert torch.equal(codes.zero, zero_points.int() - move)
    assert torch.equal(codes.data.int(), encoded.codes.int() - move)
    values = decode_uniform(codes.data, codes.scale[:, None], codes.zero[:, None])
    assert bool(((values - x).abs() <= 0.501 * codes.scale[:, None]).all())


@pytest.mark.parametrize("grid", [Grid(0.05, -3, -128, 127), TokenGrid(8, True), TokenGrid(8, False)])
def test_normalized_bytes_are_those_of_layer_norm(grid: Grid | TokenGrid):
    torch.manual_seed(0)
    kept = encode_tailed_bytes(9 * torch.randn(6, 33), KEPT)
    x, gain, bias = decode_tailed_bytes(kept, KEPT), torch.randn(33).bfloat16(), torch.randn(33)
    y = F.layer_norm(x, (33,), gain.float(), bias, 1e-5)
    codes, normalized = decode_norm_quantize(kept, KEPT, gain, bias, 1e-5, grid, normalized=torch.bfloat16)
    expected = quantize(y, grid)
    for name in ("data", "scale", "zero"):
        assert torch.equal(getattr(codes, name), getattr(expected, name))
    assert torch.equal(normalized, y.bfloat16())
    assert decode_norm_quantize(kept, KEPT, None, None, 1e-5, grid)[1] is None


@pytest.mark.parametrize("grid", [TokenGrid(8, True), TokenGrid(4, False)])
def test_rows_of_nothing_have_steps_of_1(grid: TokenGrid):
    for shape in ((0, 5), (3, 0)):
        codes = quantize(torch.zeros(shape), grid)
        assert codes.data.shape == shape and codes.scale.tolist() == [1.0] * shape[0]


@pytest.mark.parametrize("channels", [8, 9])
def test_inliers_of_four_bits_go_two_to_a_byte(channels: int):
    torch.manual_seed(0)
    x = torch.randn(3, channels)
    encoded = encode_token_outlier(x, token_scale(x, 4, 1), 4, 1)
    packed = quantize_token_outlier(x, 4, 1)
    for row, codes in zip(packed.codes.tolist(), (encoded.codes + 8).tolist(), strict=True):
        pairs = [*codes, 0] if len(codes) % 2 else codes
        assert row == [low + 16 * high for low, high in zip(pairs[::2], pairs[1::2], strict=True)]
    for found, expected in zip(packed[1:], encoded[1:], strict=True):
        assert torch.equal(found, expected)
    values = dequantize_token_outlier(packed, channels)
    assert bool(((values - x).abs() <= 0.51 * packed.scales.float()).all())


def test_operands_that_do_not_fit_are_named():
    x = torch.zeros(3, 4)
    with pytest.raises(ValueError, match=r"x must be a matrix of floats, not \(3,\)"):
        quantize_token_outlier(x[:, 0], 4, 1)
    with pytest.raises(ValueError, match="inliers of 5 bits"):
        quantize_token_outlier(x, 5, 1)
    with pytest.raises(ValueError, match="-1 outliers of a token"):
        quantize_token_outlier(x, 4, -1)
