"""Linear layers on codes give what arithmetic on the values that the codes mean gives."""

import pytest
import torch
import torch.nn.functional as F

from protquant.kernels.epilogue import Epilogue
from protquant.kernels.operands import Codes8, Grid, IntegerWeight
from protquant.kernels.packing import pack4
from protquant.kernels.reference import decode_dint, decode_uniform, encode_uniform
from protquant.kernels.reference.linear import linear
from protquant.kernels.reference.linear_flattened import Pieces, linear_flattened
from protquant.quant.channel_splitting import SaturatingSplit, pieces_at

M, N, K = 7, 5, 45


def test_eight_bit_weights_are_multiplied_as_their_values():
    torch.manual_seed(0)
    x = Codes8(torch.randint(-128, 128, (M, K)).char(), 0.01 * torch.rand(M), torch.randint(-30, 30, (M,)).int())
    codes, zero = torch.randint(-128, 128, (N, K)).char(), torch.randint(-30, 30, (N, 1)).char()
    weight = IntegerWeight(codes, 0.01 * torch.rand(N, 1), zero, torch.randn(N), N)
    weights = decode_uniform(codes, weight.scale, zero)
    gate, residual = torch.rand(M, N), torch.randn(M, N)
    y = linear(x, weight, Epilogue("gelu", gate, residual))
    expected = residual + gate * F.gelu(x.decode() @ weights.T + weight.bias)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    written = linear(x, weight, Epilogue("gelu", gate, residual, grid=Grid(0.1, 5, -128, 40)))
    assert written.dtype == torch.int8
    assert torch.equal(written, encode_uniform(y, torch.tensor(0.1), torch.tensor(5), -128, 40))
    with pytest.raises(ValueError, match=r"gate has the shape \(7, 4\), the output \(7, 5\)"):
        linear(x, weight, Epilogue(gate=gate[:, :4]))


@pytest.mark.parametrize("group_size", [None, 2, 16, 44, 46])
@pytest.mark.parametrize("kind", ["int4", "dint4"])
@pytest.mark.parametrize("of_x", ["codes", "float32", "bfloat16"])
def test_four_bit_weights_are_multiplied_as_their_values(of_x: str, kind, group_size: int | None):
    torch.manual_seed(0)
    size = group_size or K
    groups, expand = -(-K // size), torch.arange(K) // size
    codes, scale = torch.randint(0, 16, (N, K)), 0.1 * torch.rand(N, groups)
    zero = torch.randint(0, 14, (N, groups), dtype=torch.uint8)
    if kind == "dint4":
        weights = decode_dint(codes, scale[:, expand], zero[:, expand].int(), bits=4)
    else:
        weights = decode_uniform(codes, scale[:, expand], zero[:, expand].int())
    if of_x == "codes":
        data, zeros = torch.randint(-128, 128, (M, K)).char(), torch.randint(0, 16, (M,)).int()
        x = Codes8(data, 0.1 * torch.rand(M), zeros)
        values = x.decode()
    else:
        x = torch.randn(M, K).to(getattr(torch, of_x))
        values = x.float()
    y = linear(x, IntegerWeight(pack4(codes), scale, zero, None, N, kind, group_size))
    torch.testing.assert_close(y, values @ weights.T, rtol=1e-4, atol=1e-4)


def test_flattened_linear_is_the_layer_on_split_channels():
    torch.manual_seed(0)
    threshold = 2.0
    x = torch.randn(M, K) * torch.linspace(0.1, 5, K)
    split = SaturatingSplit.of(pieces_at(x.abs().amax(0), threshold), threshold)
    pieces = split(x)
    assert pieces.shape[1] > K
    step = torch.tensor(threshold / 127)
    values = decode_uniform(encode_uniform(pieces, step, None, -127, 127), step, None)
    codes, zero = torch.randint(0, 16, (N, pieces.shape[1])), torch.randint(0, 16, (N, 1), dtype=torch.uint8)
    weight = IntegerWeight(pack4(codes), 0.1 * torch.rand(N, 1), zero, None, N, "int4")
    of_channels = Pieces(split.channel, split.low, split.high)
    y = linear_flattened(x, of_channels, Grid(threshold / 127, 0, -127, 127), weight)
    torch.testing.assert_close(y, values @ weight.decode().T, rtol=1e-4, atol=1e-4)
