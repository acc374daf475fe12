"""The kernel gives what the layers of the reference give one after the other, on shapes that fill no tile."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.epilogue import Epilogue
from protquant.kernels.operands import Codes8, Grid, IntegerWeight
from protquant.kernels.reference.linear import linear, linear_codes
from protquant.kernels.triton.operands import KernelWeight
from protquant.kernels.triton.transition import transition_int8

# Rows, hidden channels, channels.
SIZES = [(1, 12, 3), (3, 1, 200), (17, 508, 127), (127, 68, 17), (129, 200, 1), (200, 516, 129)]
# Hidden codes either use both signs with a zero point, or leave the negative ones alone.
SIGNED, UNSIGNED = Grid(4.0 / 255, -128, -128, 127), Grid(4.0 / 127, 0, 0, 127)


def codes(*shape: int) -> Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8)


def projection(n: int, k: int) -> IntegerWeight:
    return IntegerWeight(codes(n, k), (0.5 + torch.rand(n, 1)) / (74 * 74 * k**0.5), None, torch.randn(n), n)


def rows(m: int, k: int, count: int = 1) -> Codes8:
    return Codes8(codes(m, 2 * k)[:, :k], 37 * (0.5 + torch.rand(count)), torch.randint(-20, 20, (count,)).int())


@pytest.mark.parametrize(("m", "f", "k"), SIZES)
@pytest.mark.parametrize("hidden", [SIGNED, UNSIGNED])
def test_sums_are_those_of_the_reference(m: int, f: int, k: int, hidden: Grid):
    torch.manual_seed(m * k)
    x, up, down = rows(m, k, m if hidden is UNSIGNED else 1), projection(f, k), projection(k, f)
    residual = torch.randn(m, k)
    found = transition_int8(x, KernelWeight.of(up), hidden, KernelWeight.of(down), residual=residual)
    expected = linear(linear_codes(x, up, "relu", [(hidden, f)]), down, Epilogue(residual=residual))
    # Integers are exact: what is left is the order of two factors in float32.
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=2e-6)
    assert (expected - residual).std() > 0.1 or k == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_hidden_codes_are_exact_and_outputs_rounded_once(dtype: torch.dtype):
    torch.manual_seed(0)
    m, f, k = 33, 130, 24
    x = Codes8(codes(m, 2 * k)[:, :k], torch.ones(1), torch.zeros(1, dtype=torch.int32))
    up = IntegerWeight(codes(f, k), torch.ones(f, 1), None, None, f)
    down = IntegerWeight(codes(16, f), torch.full((16, 1), 2.0**-16), None, None, 16)
    weights = KernelWeight.of(up), Grid(256.0, 0, 0, 127), KernelWeight.of(down)
    found = transition_int8(x, *weights, dtype=dtype, has_zero=False)
    hidden = ((x.data.double() @ up.codes.double().T).relu() / 256).round().clamp(max=127)
    expected = (hidden @ down.codes.double().T * 2.0**-8).to(dtype)
    assert found.dtype == dtype and (hidden == 127).any() and (hidden == 0).any()
    eps = 0.0 if dtype == torch.float32 else torch.finfo(dtype).eps  # the interpreter cuts bfloat16 off
    torch.testing.assert_close(found, expected, rtol=eps, atol=0)


def test_no_rows_give_no_rows():
    up, down = KernelWeight.of(projection(68, 17)), KernelWeight.of(projection(17, 68))
    assert transition_int8(rows(0, 17), up, SIGNED, down).shape == (0, 17)


@pytest.mark.parametrize(
    ("up", "down", "message"),
    [
        ((68, 17), (17, 60), "68 hidden channels, and a weight that reads 60"),
        ((68, 16), (16, 68), "x has 17 channels, and the weight reads 16"),
        ((68, 17), (300, 68), "300 channels: rows of more than 256 do not fit into registers"),
    ],
)
def test_operands_that_do_not_fit_are_named(up: tuple[int, int], down: tuple[int, int], message: str):
    with pytest.raises(ValueError, match=message):
        transition_int8(rows(5, 17), KernelWeight.of(projection(*up)), SIGNED, KernelWeight.of(projection(*down)))
