"""The kernel on split channels gives what the reference gives, whose pieces are in memory."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.packing import pack_nibbles
from protquant.kernels.reference.linear_flattened import linear_flattened as reference
from protquant.kernels.triton.flattened_linear import linear_flattened
from protquant.quant.channel_splitting import SaturatingSplit, pieces_at

THRESHOLD = 3.0


def split_of(x: Tensor) -> SaturatingSplit:
    # Less than the largest: the last piece takes the rest, which saturates.
    return SaturatingSplit.of(pieces_at(0.9 * x.float().abs().amax(0), THRESHOLD), THRESHOLD)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("m", "n", "c"), [(1, 1, 1), (17, 3, 129), (129, 17, 17), (3, 127, 200), (200, 33, 3)])
def test_pieces_are_quantized_and_summed_exactly(m: int, n: int, c: int, dtype: torch.dtype):
    torch.manual_seed(m * c)
    x = (torch.randn(c, m) * torch.rand(c, 1) * 8).T.to(dtype)
    split = split_of(x)
    d = len(split.channel)
    scale, shared = torch.rand(n), (x, THRESHOLD / 127, split.channel, split.low, split.high)
    weight = torch.randint(-128, 128, (n, d), dtype=torch.int8)
    y = linear_flattened(*shared, weight, scale, x_low=-127)
    assert torch.equal(y, reference(*shared, weight, scale, x_low=-127))
    packed, zero = pack_nibbles(torch.randint(0, 16, (n, d))), torch.randint(0, 16, (n,), dtype=torch.uint8)
    given = {"weight_zero": zero, "x_low": 1, "x_high": 7}  # nothing beyond the last piece counts, whatever its code
    assert torch.equal(linear_flattened(*shared, packed, scale, **given), reference(*shared, packed, scale, **given))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_what_follows_is_that_of_the_reference(dtype: torch.dtype):
    torch.manual_seed(0)
    m, n, c = 33, 17, 40
    x = 4 * torch.randn(m, c)
    split = split_of(x)
    weight = torch.randint(-128, 128, (n, len(split.channel)), dtype=torch.int8)
    after = {"bias": torch.randn(n), "activation": "relu", "gate": torch.rand(m, n), "residual": torch.randn(m, n)}
    after |= {"out_scale": 0.5, "out_zero": -3} if dtype == torch.int8 else {"dtype": dtype}
    operands = (x, THRESHOLD / 127, split.channel, split.low, split.high, weight, 0.01 * torch.rand(n))
    y = linear_flattened(*operands, **after)
    assert y.dtype == dtype
    assert len(y.unique()) > 20
    # Triton's interpreter cuts bfloat16 off where it should round.
    rtol = torch.finfo(dtype).eps if dtype == torch.bfloat16 else 0.0
    torch.testing.assert_close(y, reference(*operands, **after), rtol=rtol, atol=0.0)


def test_no_rows_give_no_rows():
    split = SaturatingSplit.of(torch.tensor([1, 2]), 1.0)
    weight = torch.zeros(5, 3, dtype=torch.int8)
    x = torch.zeros(0, 2)
    assert linear_flattened(x, 1.0, split.channel, split.low, split.high, weight, torch.ones(5)).shape == (0, 5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x_scale": 0.0}, "x_scale must be positive"),
        ({"low": torch.zeros(2)}, r"low has the shape \(2,\), and there are 3 pieces"),
        ({"weight": torch.zeros(5, 2, dtype=torch.uint8)}, "int8, or packed uint8 with weight_zero"),
        ({"x_high": 128}, "codes from -128 to 128 are not in the -128 to 127 of int8"),
    ],
)
def test_operands_that_do_not_fit_are_named(given: dict, message: str):
    split = SaturatingSplit.of(torch.tensor([1, 2]), 1.0)
    operands = {"x": torch.zeros(4, 2), "x_scale": 1.0, "channel": split.channel, "low": split.low, "high": split.high}
    operands |= {"weight": torch.zeros(5, 3, dtype=torch.int8), "weight_scale": torch.ones(5)}
    with pytest.raises(ValueError, match=message):
        linear_flattened(**{**operands, **given})
