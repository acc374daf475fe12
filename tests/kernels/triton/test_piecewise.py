"""Kernels that encode, decode and add give the bytes and the floats of their references."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.operands import ByteGrid
from protquant.kernels.reference import piecewise_bytes as reference
from protquant.kernels.triton import piecewise
from protquant.quant.formats import TailedGrid

SIZES = (1, 3, 17, 127, 129, 200)
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
GRIDS = {
    "asymmetric": ByteGrid(*TailedGrid.asymmetric(7, (-56.0, 906.0), (-3.0, 5.0))),
    "symmetric": ByteGrid(*TailedGrid.symmetric(7, 300.0, 4.0, unsigned=False)),
    "no left tail": ByteGrid(*TailedGrid.asymmetric(7, (-3.0, 906.0), (-3.0, 5.0))),
    "no right tail": ByteGrid(*TailedGrid.asymmetric(7, (-906.0, 5.0), (-3.0, 5.0))),
    "no tails": ByteGrid(*TailedGrid.asymmetric(7, (-3.0, 5.0), (-3.0, 5.0))),
    "away from 0": ByteGrid(0.1, -40, 0, 100, 1.0, 2.0, 63),
}
GRID = GRIDS["asymmetric"]


def wide(*shape: int) -> Tensor:
    """Values of every piece of a grid, and beyond."""
    return torch.randn(shape) * torch.tensor([1.0, 10.0, 300.0, 3000.0])[torch.randint(0, 4, shape)]


def assert_same_bits(x: Tensor, y: Tensor) -> None:
    assert x.dtype == y.dtype
    integer = torch.int32 if x.dtype == torch.float32 else torch.int16
    assert torch.equal(x.view(integer), y.view(integer))


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("dtype", FLOATS)
def test_bytes_and_values_are_those_of_the_reference(grid: ByteGrid, dtype: torch.dtype):
    torch.manual_seed(0)
    every = torch.arange(grid.levels).to(torch.uint8)
    levels = reference.decode_tailed_bytes(every, grid)
    # Midway between two levels, ties: who rounds otherwise is found out.
    x = torch.cat((wide(4000), levels, (levels[1:] + levels[:-1]) / 2)).to(dtype)
    assert torch.equal(piecewise.encode_tailed_bytes(x, grid), reference.encode_tailed_bytes(x, grid))
    assert_same_bits(piecewise.decode_tailed_bytes(every, grid), levels)
    y = piecewise.decode_tailed_bytes(every, grid, dtype)
    assert y.dtype == dtype
    # The interpreter cuts bfloat16 off, where a GPU rounds it.
    torch.testing.assert_close(y, levels.to(dtype), rtol=torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("c", SIZES)
def test_any_number_of_elements(m: int, c: int):
    torch.manual_seed(m * c)
    x, update = wide(m, 2 * c)[:, :c], wide(c, m).T
    codes = piecewise.encode_tailed_bytes(x, GRID)
    assert torch.equal(codes, reference.encode_tailed_bytes(x, GRID))
    assert_same_bits(piecewise.decode_tailed_bytes(codes.T, GRID), reference.decode_tailed_bytes(codes.T, GRID))
    total = piecewise.residual_add_encode(codes, update, GRID)
    assert torch.equal(total, reference.residual_add_encode(codes, update, GRID))


@pytest.mark.parametrize("dtype", FLOATS)
def test_sums_of_bytes_and_floats_are_those_of_the_reference(dtype: torch.dtype):
    torch.manual_seed(0)
    other = GRIDS["symmetric"]
    x, update = wide(3, 17, 129).to(dtype), wide(3, 17, 129).to(dtype)
    total = piecewise.residual_add_encode(x, update, GRID)
    assert torch.equal(total, reference.residual_add_encode(x, update, GRID))
    moved = piecewise.residual_add_encode(total, update, other, residual_grid=GRID)
    assert torch.equal(moved, reference.residual_add_encode(total, update, other, residual_grid=GRID))


def test_a_residual_in_place_is_the_sum_afterwards():
    torch.manual_seed(0)
    codes, update = piecewise.encode_tailed_bytes(wide(50, 200), GRID), wide(50, 200)
    expected = reference.residual_add_encode(codes, update, GRID)
    assert not torch.equal(codes, expected)
    assert piecewise.residual_add_encode(codes, update, GRID, out=codes) is codes
    assert torch.equal(codes, expected)
    with pytest.raises(ValueError, match=r"strides \(1, 200\): it must be contiguous"):
        piecewise.residual_add_encode(codes.T, update.T, GRID, out=codes.T)


def test_nothing_gives_nothing():
    nothing = torch.zeros(0, 17)
    codes = piecewise.encode_tailed_bytes(nothing, GRID)
    assert codes.shape == (0, 17) and codes.dtype == torch.uint8
    assert piecewise.decode_tailed_bytes(codes, GRID, torch.bfloat16).shape == (0, 17)
    assert piecewise.residual_add_encode(codes, nothing, GRID).shape == (0, 17)
