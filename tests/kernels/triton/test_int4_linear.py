"""The kernel on four-bit weights gives what the reference gives, whatever it multiplies them with."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.epilogue import Epilogue
from protquant.kernels.operands import Codes8, Grid, IntegerWeight
from protquant.kernels.packing import pack4, pack_nibbles
from protquant.kernels.reference.linear import linear
from protquant.kernels.triton.int4_linear import block_of_group, linear_int4
from protquant.kernels.triton.operands import KernelWeight

# Of rows, outputs and channels, and channels of a group: blocks of the interpreter have up to 64 of each.
SHAPES = [
    (1, 1, 1, None),
    (3, 17, 1, None),
    (17, 3, 127, 32),
    (127, 33, 17, 16),
    (3, 129, 200, 96),
    (3, 200, 129, None),
    (129, 17, 200, 64),
    (17, 127, 129, 128),
    (200, 1, 127, 48),
]


def weight(n: int, k: int, group_size: int | None, kind="int4") -> IntegerWeight:
    """Scales are powers of two: whether one is multiplied before another makes no difference."""
    groups = 1 if group_size is None else -(-k // group_size)
    zero, scale = torch.randint(0, 14, (n, groups), dtype=torch.uint8), 0.5 ** torch.randint(0, 4, (n, groups))
    return IntegerWeight(pack4(torch.randint(0, 16, (n, k))), scale, zero, torch.randn(n), n, kind, group_size)


def activations(kind: str, m: int, k: int, count: int) -> tuple[Codes8 | Tensor, Codes8 | Tensor]:
    """For the kernel and for the reference: codes of eight or of four bits with scales and zero points, or floats."""
    if kind not in ("int8", "int4"):
        x = torch.randn(k, m).T.to(getattr(torch, kind))
        return x, x
    scale = 0.5 ** torch.randint(0, 4, (count,))
    if kind == "int8":
        data, zero = torch.randint(-128, 128, (m, 2 * k), dtype=torch.int8)[:, :k], torch.randint(-128, 128, (count,))
        x = Codes8(data, scale, zero.int())
        return x, x
    data, zero = torch.randint(0, 16, (m, k), dtype=torch.uint8), torch.randint(0, 16, (count,)).int()
    return Codes8(pack_nibbles(data), scale, zero), Codes8(data, scale, zero)


@pytest.mark.parametrize("kind", ["int4", "dint4"])
@pytest.mark.parametrize("of_x", ["int8", "int4"])
@pytest.mark.parametrize(("m", "n", "k", "group_size"), SHAPES)
def test_sums_of_groups_are_exact(m: int, n: int, k: int, group_size: int | None, of_x: str, kind):
    torch.manual_seed(m * k)
    of = weight(n, k, group_size, kind)
    for count in (m, 1):
        x, same = activations(of_x, m, k, count)
        assert torch.equal(linear_int4(x, KernelWeight.of(of)), linear(same, of))
    without = replace(same, zero=torch.zeros_like(same.zero))
    assert torch.equal(linear_int4(x, KernelWeight.of(of), has_zero=False), linear(without, of))


@pytest.mark.parametrize("kind", ["int4", "dint4"])
@pytest.mark.parametrize("of_x", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("m", "n", "k", "group_size"), SHAPES[::2])
def test_floats_meet_unpacked_weights(m: int, n: int, k: int, group_size: int | None, of_x: str, kind):
    torch.manual_seed(m * k)
    of, (x, _) = weight(n, k, group_size, kind), activations(of_x, m, k, 1)
    # Sums of products without error in float32, in another order: about 200 values of 10 steps of up to 1.
    torch.testing.assert_close(linear_int4(x, KernelWeight.of(of)), linear(x, of), rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("of_x", ["int8", "int4", "bfloat16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
def test_what_follows_is_that_of_the_reference(of_x: str, dtype: torch.dtype):
    torch.manual_seed(0)
    m, n, k = 33, 127, 70
    of, (x, same) = weight(n, k, 32), activations(of_x, m, k, m)
    # Scales that are no powers of two: the kernel multiplies by that of x at the end.
    of = replace(of, scale=0.1 * torch.rand_like(of.scale))
    after = Epilogue("gelu", torch.rand(m, n), torch.randn(n, m).T)
    after = replace(after, grid=Grid(0.5, 3, -127, 127)) if dtype == torch.int8 else replace(after, dtype=dtype)
    y, expected = linear_int4(x, KernelWeight.of(of), after), linear(same, of, after)
    assert y.dtype == dtype
    if dtype == torch.int8:
        assert len(y.unique()) > 20
        # The last bit of GELU may lead across the edge between two codes.
        assert (y != expected).float().mean() < 1e-3
        assert (y.int() - expected.int()).abs().max() <= 1
    else:
        torch.testing.assert_close(y, expected, rtol=1e-5 if dtype == torch.float32 else 1e-3, atol=5e-5)


def test_sums_of_steps_are_small_integers_and_are_used():
    torch.manual_seed(0)
    of, (x, _) = KernelWeight.of(weight(3, 40, 32, "dint4")), activations("int8", 5, 40, 5)
    y = linear_int4(x, of)
    assert of.sums.dtype == torch.int16
    assert torch.equal(linear_int4(x, replace(of, sums=of.sums.int())), y)
    assert not torch.equal(linear_int4(x, replace(of, sums=of.sums + 1)), y)


def test_blocks_are_whole_parts_of_groups_where_they_can_be():
    assert [block_of_group(size, 128) for size in (16, 32, 48, 64, 96, 128, 256, 4096, 50)] == [
        32, 32, 64, 64, 32, 128, 128, 128, 64,
    ]  # fmt: skip


def test_no_rows_give_no_rows():
    assert linear_int4(torch.zeros(0, 17), KernelWeight.of(weight(3, 17, None))).shape == (0, 3)


def test_operands_that_do_not_fit_are_named():
    of, one, zero = KernelWeight.of(weight(5, 17, None)), torch.ones(1), torch.zeros(1, dtype=torch.int32)
    with pytest.raises(ValueError, match="x has 18 channels, and the weight reads 17"):
        linear_int4(torch.zeros(2, 18), of)
    with pytest.raises(ValueError, match="rows of 17 bytes, which are not 17 channels of 4 bits"):
        linear_int4(Codes8(torch.zeros(2, 17, dtype=torch.uint8), one, zero), of)
    with pytest.raises(ValueError, match="group_size 3 is not even"):
        KernelWeight.of(weight(5, 17, 3))
