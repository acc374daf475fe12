"""Linear layers on codes give what arithmetic on the values that the codes mean gives."""

import pytest
import torch
import torch.nn.functional as F

from protquant.kernels.packing import pack_nibbles, unpack_nibbles
from protquant.kernels.reference import decode_dint, decode_uniform, encode_uniform
from protquant.kernels.reference.linear import linear_int8
from protquant.kernels.reference.linear_flattened import linear_flattened
from protquant.kernels.reference.linear_int4 import linear_int4
from protquant.quant.channel_splitting import SaturatingSplit, pieces_at

M, N, K = 7, 5, 45


def test_int8_linear_multiplies_the_values_of_its_codes():
    torch.manual_seed(0)
    x, weight = torch.randint(-128, 128, (M, K), dtype=torch.int8), torch.randint(-128, 128, (N, K), dtype=torch.int8)
    x_scale, x_zero = 0.01 * torch.rand(M), torch.randint(-30, 30, (M,), dtype=torch.int32)
    scale, zero = 0.01 * torch.rand(N), torch.randint(-30, 30, (N,), dtype=torch.int32)
    bias, gate, residual = torch.randn(N), torch.rand(M, N), torch.randn(M, N)
    values = decode_uniform(x, x_scale[:, None], x_zero[:, None])
    weights = decode_uniform(weight, scale[:, None], zero[:, None])
    after = {"bias": bias, "activation": "gelu", "gate": gate, "residual": residual}
    y = linear_int8(x, x_scale, weight, scale, x_zero=x_zero, weight_zero=zero, **after)
    expected = residual + gate * F.gelu(values @ weights.T + bias)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    codes = linear_int8(
        x, x_scale, weight, scale, x_zero=x_zero, weight_zero=zero, **after, out_scale=0.1, out_zero=5, out_high=40
    )
    assert codes.dtype == torch.int8
    assert torch.equal(codes, encode_uniform(y, torch.tensor(0.1), torch.tensor(5), -128, 40))


@pytest.mark.parametrize("group_size", [None, 2, 16, 44, 46])
@pytest.mark.parametrize("codes", ["uniform", "dint"])
@pytest.mark.parametrize("kind", ["int8", "packed", "float32", "bfloat16"])
def test_int4_linear_multiplies_the_values_of_its_codes(kind: str, codes, group_size: int | None):
    torch.manual_seed(0)
    size = group_size or K
    groups = -(-K // size)
    of_weight, scale = torch.randint(0, 16, (N, K)), 0.1 * torch.rand(N, groups)
    zero = torch.randint(0, 14, (N, groups), dtype=torch.uint8)
    expand = torch.arange(K) // size
    if codes == "dint":
        weights = decode_dint(of_weight, scale[:, expand], zero[:, expand].int(), bits=4)
    else:
        weights = decode_uniform(of_weight, scale[:, expand], zero[:, expand].int())
    of_x = {"x_scale": 0.1 * torch.rand(M), "x_zero": torch.randint(0, 16, (M,), dtype=torch.int32)}
    if kind == "int8":
        x = torch.randint(-128, 128, (M, K), dtype=torch.int8)
        values = decode_uniform(x, of_x["x_scale"][:, None], of_x["x_zero"][:, None])
    elif kind == "packed":
        of_four_bits = torch.randint(0, 16, (M, K))
        x = pack_nibbles(of_four_bits)
        values = decode_uniform(of_four_bits, of_x["x_scale"][:, None], of_x["x_zero"][:, None])
    else:
        x, of_x = torch.randn(M, K).to(getattr(torch, kind)), {}
        values = x.float()
    y = linear_int4(x, pack_nibbles(of_weight), scale, zero, channels=K, group_size=group_size, codes=codes, **of_x)
    torch.testing.assert_close(y, values @ weights.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("packed", [False, True])
def test_flattened_linear_is_the_layer_on_split_channels(packed: bool):
    torch.manual_seed(0)
    threshold, scale = 2.0, 0.1 * torch.rand(N)
    x = torch.randn(M, K) * torch.linspace(0.1, 5, K)
    split = SaturatingSplit.of(pieces_at(x.abs().amax(0), threshold), threshold)
    pieces = split(x)
    assert pieces.shape[1] > K
    step = torch.tensor(threshold / 127)
    values = decode_uniform(encode_uniform(pieces, step, None, -127, 127), step, None)
    of_weight = torch.randint(0, 16, (N, pieces.shape[1]))
    zero = torch.randint(0, 16, (N,), dtype=torch.uint8) if packed else None
    weights = decode_uniform(of_weight, scale[:, None], None if zero is None else zero[:, None].int())
    given = pack_nibbles(of_weight) if packed else of_weight.to(torch.int8)
    operands = (x, threshold / 127, split.channel, split.low, split.high, given, scale)
    y = linear_flattened(*operands, weight_zero=zero, x_low=-127)
    torch.testing.assert_close(y, values @ weights.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [0, 1, 2, 17])
def test_rows_of_nibbles_begin_with_a_byte_of_their_own(k: int):
    codes = torch.randint(0, 16, (3, k), dtype=torch.uint8)
    packed = pack_nibbles(codes)
    assert packed.shape == (3, -(-k // 2))
    assert torch.equal(unpack_nibbles(packed, k), codes)
    for row in range(3):
        assert torch.equal(pack_nibbles(codes[row : row + 1])[0], packed[row])
    with pytest.raises(ValueError, match=f"{k + 2} channels of 4 bits take {k // 2 + k % 2 + 1} bytes"):
        unpack_nibbles(packed, k + 2)
