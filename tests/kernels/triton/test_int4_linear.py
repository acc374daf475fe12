"""The kernel on four-bit weights gives what the reference gives, whatever it multiplies them with."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.packing import pack_nibbles
from protquant.kernels.reference.linear_int4 import linear_int4 as reference
from protquant.kernels.triton.int4_linear import block_of_group, linear_int4, weight_sums

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


def weight(n: int, k: int, group_size: int | None) -> tuple[Tensor, Tensor, Tensor]:
    groups = 1 if group_size is None else -(-k // group_size)
    zero = torch.randint(0, 14, (n, groups), dtype=torch.uint8)
    return pack_nibbles(torch.randint(0, 16, (n, k))), 0.1 * torch.rand(n, groups), zero


def activations(kind: str, m: int, k: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Of int8 or of packed codes, with scales and zero points by row, or floats."""
    if kind == "int8":
        x, zero = torch.randint(-128, 128, (m, 2 * k), dtype=torch.int8)[:, :k], torch.randint(-128, 128, (m,))
    elif kind == "packed":
        x, zero = pack_nibbles(torch.randint(0, 16, (m, k))), torch.randint(0, 16, (m,))
    else:
        return torch.randn(k, m).T.to(getattr(torch, kind)), {}
    return x, {"x_scale": torch.rand(m), "x_zero": zero.int()}


@pytest.mark.parametrize("codes", ["uniform", "dint"])
@pytest.mark.parametrize("kind", ["int8", "packed"])
@pytest.mark.parametrize(("m", "n", "k", "group_size"), SHAPES)
def test_sums_of_groups_are_exact(m: int, n: int, k: int, group_size: int | None, kind: str, codes):
    torch.manual_seed(m * k)
    packed, scale, zero = weight(n, k, group_size)
    x, of_x = activations(kind, m, k)
    given = {"channels": k, "group_size": group_size, "codes": codes, **of_x}
    assert torch.equal(linear_int4(x, packed, scale, zero, **given), reference(x, packed, scale, zero, **given))
    # One scale for all rows, no zero point.
    given |= {"x_scale": torch.full((1,), 0.3), "x_zero": None}
    assert torch.equal(linear_int4(x, packed, scale, zero, **given), reference(x, packed, scale, zero, **given))


@pytest.mark.parametrize("codes", ["uniform", "dint"])
@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("m", "n", "k", "group_size"), SHAPES[::2])
def test_floats_meet_unpacked_weights(m: int, n: int, k: int, group_size: int | None, kind: str, codes):
    torch.manual_seed(m * k)
    packed, scale, zero = weight(n, k, group_size)
    x, _ = activations(kind, m, k)
    given = {"channels": k, "group_size": group_size, "codes": codes}
    y = linear_int4(x, packed, scale, zero, **given)
    # Sums of products without error in float32, in another order: about 200 values of 10 steps of up to 0.1.
    expected = reference(x, packed, scale, zero, **given)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("kind", ["int8", "packed", "bfloat16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
def test_what_follows_is_that_of_the_reference(kind: str, dtype: torch.dtype):
    torch.manual_seed(0)
    m, n, k = 33, 127, 70
    packed, scale, zero = weight(n, k, 32)
    x, of_x = activations(kind, m, k)
    after = {"bias": torch.randn(n), "activation": "gelu", "gate": torch.rand(m, n), "residual": torch.randn(n, m).T}
    after |= {"out_scale": 0.5, "out_zero": 3, "out_low": -127} if dtype == torch.int8 else {"dtype": dtype}
    given = {"channels": k, "group_size": 32, **of_x, **after}
    y = linear_int4(x, packed, scale, zero, **given)
    expected = reference(x, packed, scale, zero, **given)
    assert y.dtype == dtype
    if dtype == torch.int8:
        assert len(y.unique()) > 20
        # The last bit of GELU may lead across the edge between two codes.
        assert (y != expected).float().mean() < 1e-3
        assert (y.int() - expected.int()).abs().max() <= 1
    else:
        torch.testing.assert_close(y, expected, rtol=1e-5 if dtype == torch.float32 else 1e-3, atol=1e-5)


def test_sums_that_are_given_are_used():
    torch.manual_seed(0)
    packed, scale, zero = weight(3, 40, 32)
    x, of_x = activations("int8", 5, 40)
    sums = weight_sums(packed, zero, 40, 32, "dint")
    given = {"channels": 40, "group_size": 32, "codes": "dint", **of_x}
    y = linear_int4(x, packed, scale, zero, **given)
    assert torch.equal(linear_int4(x, packed, scale, zero, weight_sum=sums.short(), **given), y)
    assert not torch.equal(linear_int4(x, packed, scale, zero, weight_sum=sums + 1, **given), y)


def test_blocks_are_whole_parts_of_groups_where_they_can_be():
    assert [block_of_group(size, 128) for size in (16, 32, 48, 64, 96, 128, 256, 4096, 50)] == [
        32, 32, 64, 64, 32, 128, 128, 128, 64,
    ]  # fmt: skip


def test_no_rows_give_no_rows():
    packed, scale, zero = weight(3, 17, None)
    assert linear_int4(torch.zeros(0, 17), packed, scale, zero, channels=17).shape == (0, 3)


@pytest.mark.parametrize(
    ("x", "given", "message"),
    [
        (torch.zeros(2, 18), {}, "rows of 18, which are not 17 channels"),
        (torch.zeros(2, 17), {"x_scale": torch.ones(1)}, "holds values, which take no scale"),
        (torch.zeros(2, 17, dtype=torch.int8), {}, "holds codes, which need x_scale"),
        (torch.zeros(2, 17, dtype=torch.uint8), {"x_scale": torch.ones(1)}, "rows of 17, which are not 17 channels"),
        (torch.zeros(2, 17), {"group_size": 3}, "group_size 3 is not even"),
        (torch.zeros(2, 17), {"group_size": 8}, r"weight_scale has the shape \(5, 1\), not \(5, 3\): 17 channels"),
        (torch.zeros(2, 17), {"codes": "int"}, "codes 'int' are neither uniform nor dint"),
        (torch.zeros(2, 19), {"channels": 19}, r"weight must be a matrix of uint8, 10 bytes for 19 channels"),
    ],
)
def test_operands_that_do_not_fit_are_named(x: Tensor, given: dict, message: str):
    packed, scale, zero = weight(5, 17, None)
    with pytest.raises(ValueError, match=message):
        linear_int4(x, packed, scale, zero, **{"channels": 17, **given})
