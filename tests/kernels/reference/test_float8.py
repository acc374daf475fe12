import pytest
import torch

from protquant.kernels.reference import decode_float8, encode_float8


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float8_e4m3fn, 448.0), (torch.float8_e5m2, 57_344.0)])
def test_bytes_are_those_of_torchs_cast_and_never_infinite(dtype, largest):
    x = torch.tensor([0.0, 1.0, -1.0, 0.3, largest, -largest, 3e38, float("inf")])
    codes = encode_float8(x, torch.tensor(1.0), dtype)
    assert codes.dtype == torch.uint8
    assert torch.equal(codes[:6], x[:6].to(dtype).view(torch.uint8))
    assert decode_float8(codes, torch.tensor(1.0), dtype)[6:].tolist() == [largest, largest]


def test_scales_broadcast_per_row():
    x = torch.tensor([[1.0, 2.0], [10.0, 20.0]])
    codes = encode_float8(x, torch.tensor([[1.0], [10.0]]), torch.float8_e4m3fn)
    assert torch.equal(codes[0], codes[1])
    assert torch.equal(decode_float8(codes, torch.tensor([[1.0], [10.0]]), torch.float8_e4m3fn), x)
