"""Rows become int8 codes as the formats of the simulation have it, by themselves, normalized, and in pairs."""

import pytest
import torch
import torch.nn.functional as F

from protquant.kernels.operands import ByteGrid
from protquant.kernels.reference import decode_uniform, encode_token_outlier, encode_uniform, token_scale
from protquant.kernels.reference.norm import (
    decode_norm_quantize,
    decode_norm_quantize_per_token,
    layer_norm_quantize,
    layer_norm_quantize_per_token,
)
from protquant.kernels.reference.outer import outer_quantize
from protquant.kernels.reference.piecewise_bytes import decode_tailed_bytes, encode_tailed_bytes
from protquant.kernels.reference.quantize import quantize_int8, quantize_int8_per_token
from protquant.kernels.reference.token_outlier_rows import dequantize_token_outlier, quantize_token_outlier
from protquant.quant.formats import TailedGrid, Uniform

SCALE, ZERO = torch.tensor([0.05]), torch.tensor([-3], dtype=torch.int32)
GRID = ByteGrid(*TailedGrid.asymmetric(7, (-56.0, 906.0), (-3.0, 5.0)))


def test_one_scale_for_all_is_the_uniform_format():
    torch.manual_seed(0)
    x = 4 * torch.randn(5, 33)
    codes = quantize_int8(x, SCALE, ZERO, -100, 90)
    assert torch.equal(codes, encode_uniform(x, SCALE, ZERO, -100, 90))
    assert (int(codes.min()), int(codes.max())) == (-100, 90)


@pytest.mark.parametrize("symmetric", [True, False])
def test_steps_of_tokens_are_those_of_the_simulation(symmetric: bool):
    torch.manual_seed(0)
    x = torch.randn(40, 33) * torch.logspace(-6, 6, 40)[:, None] + torch.randn(40, 1)
    x[3], x[4], x[5] = 0.0, x[4].abs(), -x[5].abs()
    codes, scales, zeros = quantize_int8_per_token(x, symmetric=symmetric)
    assert codes.dtype == torch.int8 and scales[3] == 1
    encoded = Uniform(8, symmetric=symmetric, granularity="token").for_activation(None, None).encode(x)
    assert torch.equal(scales, encoded.scales.flatten())
    if symmetric:
        assert zeros is None and torch.equal(codes, encoded.codes)
        assert bool((codes.int().abs().amax(1)[scales != 1] == 127).all())
    else:
        assert torch.equal(zeros, encoded.zero_points.flatten() - 128)
        assert torch.equal(codes.int(), encoded.codes.int() - 128)
    values = decode_uniform(codes, scales[:, None], None if zeros is None else zeros[:, None])
    assert bool(((values - x).abs() <= 0.501 * scales[:, None]).all())


def test_normalized_rows_are_those_of_layer_norm():
    torch.manual_seed(0)
    codes = encode_tailed_bytes(9 * torch.randn(6, 33), GRID)
    x, gain, bias = decode_tailed_bytes(codes, GRID), torch.randn(33).bfloat16(), torch.randn(33)
    y = F.layer_norm(x, (33,), gain.float(), bias, 1e-5)
    assert torch.equal(layer_norm_quantize(x, gain, bias, 1e-5, SCALE, ZERO), quantize_int8(y, SCALE, ZERO))
    plain = F.layer_norm(x, (33,))
    assert torch.equal(layer_norm_quantize(x, None, None, 1e-5, SCALE), quantize_int8(plain, SCALE))
    quantized, normalized = decode_norm_quantize(codes, GRID, gain, bias, 1e-5, SCALE, normalized=torch.bfloat16)
    assert torch.equal(quantized, quantize_int8(y, SCALE)) and torch.equal(normalized, y.bfloat16())
    for symmetric in (True, False):
        expected = quantize_int8_per_token(y, symmetric=symmetric)
        of_bytes, nothing = decode_norm_quantize_per_token(codes, GRID, gain, bias, 1e-5, symmetric=symmetric)
        of_floats = layer_norm_quantize_per_token(x, gain, bias, 1e-5, symmetric=symmetric)
        assert nothing is None
        for found in (of_bytes, of_floats):
            assert torch.equal(found.codes, expected.codes) and torch.equal(found.scales, expected.scales)


def test_pairs_are_products_and_differences_of_residues():
    torch.manual_seed(0)
    q, k = torch.randn(5, 8).chunk(2, dim=-1)
    codes = outer_quantize(q, k, SCALE, ZERO)
    assert codes.shape == (5, 5, 8)
    for i in range(5):
        for j in range(5):
            pair = torch.cat((q[j] * k[i], q[j] - k[i]))
            assert torch.equal(codes[i, j], encode_uniform(pair, SCALE, ZERO, -128, 127))
    # Fewer rows of k give a tile of the same rows.
    assert torch.equal(outer_quantize(q, k[1:3], SCALE, ZERO), codes[1:3])


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
        quantize_int8(x[:, 0], SCALE)
    with pytest.raises(ValueError, match=r"scale has the shape \(3,\), not \(1,\)"):
        quantize_int8(x, torch.ones(3))
    with pytest.raises(ValueError, match="codes from 0 to 255 are none of int8"):
        quantize_int8(x, SCALE, None, 0, 255)
    with pytest.raises(ValueError, match=r"gain has the shape \(3,\), and rows have 4 channels"):
        layer_norm_quantize(x, torch.ones(3), None, 1e-5, SCALE)
    with pytest.raises(ValueError, match="rows of no channels have no mean"):
        layer_norm_quantize(x[:, :0], None, None, 1e-5, SCALE)
    with pytest.raises(ValueError, match="codes must be a matrix of uint8"):
        decode_norm_quantize(x, GRID, None, None, 1e-5, SCALE)
    with pytest.raises(ValueError, match="q has 4 channels, and k has 3"):
        outer_quantize(x, x[:, :3], SCALE)
    with pytest.raises(ValueError, match="inliers of 5 bits"):
        quantize_token_outlier(x, 5, 1)
    with pytest.raises(ValueError, match="-1 outliers of a token"):
        quantize_token_outlier(x, 4, -1)
