"""The kernel gives what the reference gives, on shapes that fill no tile."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.reference import triangle_product as reference
from protquant.kernels.triton.triangle_product import triangle_product

# Residues i, j and k.
SIZES = [(1, 3, 17), (3, 1, 200), (17, 127, 129), (127, 200, 1), (129, 17, 3), (200, 129, 127)]
ONE = torch.tensor(1.0)


def codes(*shape: int) -> Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8)


@pytest.mark.parametrize(("i", "j", "k"), SIZES)
@pytest.mark.parametrize("direction", ["outgoing", "incoming"])
def test_sums_are_exact(i: int, j: int, k: int, direction):
    torch.manual_seed(i * k)
    left, right = (codes(2, n, k) if direction == "outgoing" else codes(2, k, n) for n in (i, j))
    steps = left.double() - 5, right.double() + 7
    letters = "cik,cjk->ijc" if direction == "outgoing" else "cki,ckj->ijc"
    given = {"left_zero": torch.tensor(5), "right_zero": torch.tensor(-7)}
    found = triangle_product(left, right, direction, ONE, ONE, **given)
    assert torch.equal(found, torch.einsum(letters, *steps).float())


@pytest.mark.parametrize(("i", "j", "k"), SIZES)
@pytest.mark.parametrize("direction", ["outgoing", "incoming"])
def test_operands_with_room_behind_them_give_the_same(i: int, j: int, k: int, direction):
    torch.manual_seed(i * k)
    parts = []
    for n in (i, j):
        room = codes(3, 240, 224)  # what lies beyond i and j may be anything
        some = room[:, :n, :k] if direction == "outgoing" else room[:, :k, :n]
        beyond = room[:, :, k:] if direction == "outgoing" else room[:, k:]
        beyond.zero_()
        parts.append(some)
    given = {"left_zero": torch.tensor(5), "right_zero": torch.tensor(-7), "left_scale": ONE, "right_scale": ONE}
    found = triangle_product(*parts, direction, is_padded=True, **given)
    assert torch.equal(found, triangle_product(*parts, direction, **given))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("zeros", [(None, None), (3, None), (None, -4), (-128, 127)])
def test_what_follows_is_that_of_the_reference(dtype: torch.dtype, zeros):
    torch.manual_seed(0)
    c, length = 5, 33
    left, right = codes(length, c, length).transpose(0, 1), codes(c, length, 2 * length)[:, :, ::2]
    left_zero, right_zero = (None if zero is None else torch.tensor(zero) for zero in zeros)
    given = {"left_zero": left_zero, "right_zero": right_zero, "dtype": dtype}
    scales = 0.01 * torch.rand(c), torch.tensor([0.02])
    for direction in ("outgoing", "incoming"):
        found = triangle_product(left, right, direction, *scales, **given)
        expected = reference.triangle_product(left, right, direction, *scales, **given)
        assert found.shape == (length, length, c) and found.dtype == dtype
        # A unit in the last place of the output's type: the interpreter cuts bfloat16 off.
        torch.testing.assert_close(
            found, expected, rtol=torch.finfo(dtype).eps if dtype != torch.float32 else 0, atol=0
        )
        assert found.permute(2, 0, 1).is_contiguous()


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4)])
def test_no_channels_or_residues_give_none(shape: tuple[int, ...]):
    found = triangle_product(codes(*shape), codes(shape[0], 5, 4), "outgoing", ONE, ONE)
    assert found.shape == (shape[1], 5, shape[0])


def test_a_sum_over_nothing_is_zero():
    assert (triangle_product(codes(2, 3, 0), codes(2, 5, 0), "outgoing", ONE, ONE, left_zero=ONE.int()) == 0).all()


@pytest.mark.parametrize(
    ("left", "direction", "scale", "message"),
    [
        (torch.zeros(2, 3, 4), "outgoing", ONE, "left must be"),
        (codes(2, 3, 5), "outgoing", ONE, r"outgoing edges cannot be summed over \(2, 3, 5\) and \(2, 3, 4\)"),
        (codes(2, 4, 4), "incoming", ONE, r"incoming edges cannot be summed over \(2, 4, 4\) and \(2, 3, 4\)"),
        (codes(2, 3, 4), "both", ONE, "direction 'both' is neither"),
        (codes(2, 3, 4), "incoming", torch.ones(3), r"left_scale has the shape \(3,\), not \(\) or \(2,\)"),
    ],
)
def test_operands_that_do_not_fit_are_named(left: Tensor, direction, scale: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        triangle_product(left, codes(2, 3, 4), direction, scale, ONE)
