"""The kernel gives what the reference gives, on shapes that fill no tile."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.operands import Grid
from protquant.kernels.reference.triangle_product import triangle_product as reference
from protquant.kernels.triton.triangle_product import triangle_product

# Residues i, j and k.
SIZES = [(1, 3, 17), (3, 1, 200), (17, 127, 129), (127, 200, 1), (129, 17, 3), (200, 129, 127)]
GRIDS = (Grid(1.0, 5, -128, 127), Grid(1.0, -7, -128, 127))


def codes(*shape: int) -> Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8)


@pytest.mark.parametrize(("i", "j", "k"), SIZES)
@pytest.mark.parametrize("direction", ["outgoing", "incoming"])
def test_sums_are_exact(i: int, j: int, k: int, direction):
    torch.manual_seed(i * k)
    left, right = (codes(2, n, k) if direction == "outgoing" else codes(2, k, n) for n in (i, j))
    steps = left.double() - 5, right.double() + 7
    letters = "cik,cjk->cij" if direction == "outgoing" else "cki,ckj->cij"
    expected = torch.einsum(letters, *steps)
    assert torch.equal(reference(left, right, GRIDS, direction), expected)
    assert torch.equal(triangle_product(left, right, GRIDS, direction), expected.float())


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
    found = triangle_product(*parts, GRIDS, direction, is_padded=True)
    assert torch.equal(found, triangle_product(*parts, GRIDS, direction))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("zeros", [(0, 0), (3, 0), (0, -4), (-128, 127)])
def test_what_follows_is_that_of_the_reference(dtype: torch.dtype, zeros):
    torch.manual_seed(0)
    c, length = 5, 33
    left, right = codes(length, c, length).transpose(0, 1), codes(c, length, 2 * length)[:, :, ::2]
    grids = Grid(0.007, zeros[0], -128, 127), Grid(0.02, zeros[1], -128, 127)
    scale = torch.tensor(grids[0].scale) * torch.tensor(grids[1].scale)
    for direction in ("outgoing", "incoming"):
        found = triangle_product(left, right, grids, direction, dtype=dtype)
        expected = (reference(left, right, grids, direction).float() * scale).to(dtype)
        assert found.shape == (c, length, length) and found.dtype == dtype and found.is_contiguous()
        # A unit in the last place of the output's type: the interpreter cuts bfloat16 off.
        rtol = torch.finfo(dtype).eps if dtype != torch.float32 else 0
        torch.testing.assert_close(found, expected, rtol=rtol, atol=0)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4)])
def test_no_channels_or_residues_give_none(shape: tuple[int, ...]):
    found = triangle_product(codes(*shape), codes(shape[0], 5, 4), GRIDS, "outgoing")
    assert found.shape == (shape[0], shape[1], 5)


def test_a_sum_over_nothing_is_zero():
    assert (triangle_product(codes(2, 3, 0), codes(2, 5, 0), GRIDS, "outgoing") == 0).all()


@pytest.mark.parametrize(
    ("left", "direction", "message"),
    [
        (torch.zeros(2, 3, 4), "outgoing", "operands must be int8, not torch.float32 and torch.int8"),
        (codes(2, 3, 5), "outgoing", r"outgoing edges cannot be summed over \(2, 3, 5\) and \(2, 3, 4\)"),
        (codes(2, 4, 4), "incoming", r"incoming edges cannot be summed over \(2, 4, 4\) and \(2, 3, 4\)"),
    ],
)
def test_operands_that_do_not_fit_are_named(left: Tensor, direction, message: str):
    with pytest.raises(ValueError, match=message):
        triangle_product(left, codes(2, 3, 4), GRIDS, direction)
