"""The kernel gives what the reference gives, on shapes that fill no tile."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.reference import transition as reference
from protquant.kernels.reference.projection import Int8Projection
from protquant.kernels.triton.transition import transition_int8

# Rows, hidden channels, channels.
SIZES = [(1, 12, 3), (3, 1, 200), (17, 508, 127), (127, 68, 17), (129, 200, 1), (200, 516, 129)]


def codes(*shape: int) -> Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8)


def projection(n: int, k: int) -> Int8Projection:
    return Int8Projection(codes(n, k), (0.5 + torch.rand(n)) / (74 * 74 * k**0.5), torch.randn(n))


@pytest.mark.parametrize(("m", "f", "k"), SIZES)
@pytest.mark.parametrize("unsigned", [False, True])
def test_sums_are_those_of_the_reference(m: int, f: int, k: int, unsigned: bool):
    """Hidden codes either use both signs with a zero point, or leave the negative ones alone."""
    torch.manual_seed(m * k)
    rows = m if unsigned else 1
    up, down = projection(f, k), projection(k, f)
    given = {"x_zero": torch.randint(-20, 20, (rows,)).int(), "residual": torch.randn(m, k)}
    given |= {"out_low": 0} if unsigned else {"hidden_zero": torch.tensor(-128)}
    step = torch.tensor(4.0 / (127 if unsigned else 255))
    x, scale = codes(m, k), 37 * (0.5 + torch.rand(rows))
    found = transition_int8(x, scale, up, step, down, **given)
    expected = reference.transition_int8(x, scale, up, step, down, **given)
    # Integers are exact: what is left is the order of two factors in float32.
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=2e-6)
    assert (expected - given["residual"]).std() > 0.1 or k == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_hidden_codes_are_exact_and_outputs_rounded_once(dtype: torch.dtype):
    torch.manual_seed(0)
    m, f, k = 33, 130, 24
    x, up, down = codes(m, 2 * k)[:, :k], codes(f, k), codes(16, f)
    up_scale, down_scale = torch.ones(f), torch.full((16,), 2.0**-16)
    step = torch.tensor(256.0)
    found = transition_int8(
        x, torch.ones(1), Int8Projection(up, up_scale), step, Int8Projection(down, down_scale), out_low=0, dtype=dtype
    )
    hidden = ((x.double() @ up.double().T).relu() / 256).round().clamp(max=127)
    expected = (hidden @ down.double().T * 2.0**-8).to(dtype)
    assert found.dtype == dtype and (hidden == 127).any() and (hidden == 0).any()
    eps = 0.0 if dtype == torch.float32 else torch.finfo(dtype).eps  # the interpreter cuts bfloat16 off
    torch.testing.assert_close(found, expected, rtol=eps, atol=0)


def test_no_rows_give_no_rows():
    found = transition_int8(codes(0, 17), torch.ones(1), projection(68, 17), torch.tensor(1.0), projection(17, 68))
    assert found.shape == (0, 17)


@pytest.mark.parametrize(
    ("up", "down", "wrong", "message"),
    [
        ((68, 17), (17, 60), {}, r"68 hidden channels, and a weight \(17, 60\) that reads them"),
        ((68, 16), (16, 68), {}, "x has 17 channels, and the weight reads 16"),
        ((68, 17), (300, 68), {}, "300 channels: rows of more than 256 do not fit into registers"),
        ((68, 17), (17, 68), {"out_low": -129}, "codes from -129 to 127 are not codes of int8"),
    ],
)
def test_operands_that_do_not_fit_are_named(up, down, wrong: dict, message: str):
    with pytest.raises(ValueError, match=message):
        transition_int8(codes(5, 17), torch.ones(1), projection(*up), torch.tensor(1.0), projection(*down), **wrong)
