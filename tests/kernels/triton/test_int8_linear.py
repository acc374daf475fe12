"""The kernel gives what the reference gives, on shapes that fill no tile."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.epilogue import Epilogue
from protquant.kernels.operands import Codes8, Grid, IntegerWeight
from protquant.kernels.reference.linear import linear
from protquant.kernels.triton.int8_linear import linear_int8
from protquant.kernels.triton.operands import KernelWeight

SIZES = (1, 3, 17, 127, 129, 200)


def codes(*shape: int) -> Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8)


def rows(m: int, k: int, count: int = 1, size: float = 0.01) -> Codes8:
    """Strided rows, with `count` scales and zero points."""
    zero = torch.randint(-128, 128, (count,), dtype=torch.int32)
    return Codes8(codes(m, 2 * k)[:, :k], size * (0.1 + torch.rand(count)), zero)


def weight(n: int, k: int, *, has_zero: bool = False, size: float = 0.01) -> IntegerWeight:
    zero = codes(n, 1) if has_zero else None
    return IntegerWeight(codes(n, k), size * (0.1 + torch.rand(n, 1)), zero, torch.randn(n), n)


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("has_zero", [False, True])
def test_sums_of_products_are_exact(m: int, k: int, has_zero: bool):
    torch.manual_seed(m * k)
    n = SIZES[(m + k) % len(SIZES)]
    steps = IntegerWeight(codes(n, k), torch.ones(n, 1), codes(n, 1) if has_zero else None, None, n)
    for count in (1, m):
        x = Codes8(codes(m, k), torch.ones(count), torch.randint(-128, 128, (count,), dtype=torch.int32))
        assert torch.equal(linear_int8(x, KernelWeight.of(steps)), linear(x, steps))
        without = Codes8(x.data, x.scale, torch.zeros_like(x.zero))
        assert torch.equal(linear_int8(x, KernelWeight.of(steps), has_zero=False), linear(without, steps))


@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "sigmoid"])
@pytest.mark.parametrize("count", [1, 129])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_follows_is_that_of_the_reference(activation, count: int, dtype: torch.dtype):
    torch.manual_seed(0)
    m, n, k = 129, 127, 200
    x, of = rows(m, k, count), weight(n, k, has_zero=count == 1)
    after = Epilogue(activation, torch.rand(m, n), torch.randn(n, m).T.to(dtype), dtype)
    y, expected = linear_int8(x, KernelWeight.of(of), after), linear(x, of, after)
    assert y.dtype == dtype
    # A unit in the last place of the output's type.
    torch.testing.assert_close(y, expected, rtol=torch.finfo(dtype).eps if dtype != torch.float32 else 2e-6, atol=2e-6)


@pytest.mark.parametrize(("zero", "low", "high"), [(0, -128, 127), (1, -127, 127), (-100, -128, -1), (7, 0, 15)])
def test_codes_are_written_as_the_reference_rounds(zero: int, low: int, high: int):
    torch.manual_seed(0)
    m, n, k = 129, 17, 127
    grid, gate = Grid(2.0, zero, low, high), torch.rand(m, n).half()
    # Sums of whole halves of a step: every second one is a tie.
    of = IntegerWeight(codes(n, k), torch.ones(n, 1), None, None, n)
    x = Codes8(codes(m, k), torch.full((1,), 2.0**-12), torch.zeros(1, dtype=torch.int32))
    after = Epilogue("relu", gate, torch.randint(-9, 9, (m, n)).bfloat16(), grid=grid)
    y = linear_int8(x, KernelWeight.of(of), after)
    assert y.dtype == torch.int8
    assert torch.equal(y, linear(x, of, after))
    few = IntegerWeight(of.codes[:, :17], of.scale, None, None, n)
    ones = Codes8(torch.eye(3, 17, dtype=torch.int8), torch.ones(1), torch.zeros(1, dtype=torch.int32))
    ties = linear_int8(ones, KernelWeight.of(few), Epilogue(grid=grid))
    expected = (few.codes[:, :3].T.float() / 2).round() + zero
    assert torch.equal(ties, expected.clamp(low, high).to(torch.int8))
    assert len(ties.unique()) > 3


def test_no_rows_give_no_rows():
    assert linear_int8(rows(0, 17), KernelWeight.of(weight(3, 17))).shape == (0, 3)


def test_operands_that_do_not_fit_are_named():
    x, of = rows(3, 17), KernelWeight.of(weight(5, 17))
    with pytest.raises(ValueError, match="x has 16 channels, and the weight reads 17"):
        linear_int8(rows(3, 16), of)
    with pytest.raises(ValueError, match=r"gate has the shape \(3, 4\), the output \(3, 5\)"):
        linear_int8(x, of, Epilogue(gate=torch.ones(3, 4)))
    with pytest.raises(ValueError, match="'silu' is none of none, relu, gelu"):
        linear_int8(x, of, Epilogue("silu"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"out must be \(3, 5\) of torch.float32, contiguous, not \(3, 4\)"):
        linear_int8(x, of, out=torch.ones(3, 4))
    with pytest.raises(ValueError, match="sums over 33026 channels may pass 32 bits; at most 33025 do not"):
        KernelWeight.of(weight(1, 33026))
    with pytest.raises(ValueError, match="no groups of eight-bit weights, and this has groups of 8"):
        KernelWeight.of(IntegerWeight(codes(1, 16), torch.ones(1, 2), None, None, 1, "int8", 8))
