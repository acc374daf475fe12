"""Tiles of rows cover all rows, and codes of a norm are those of its output."""

import pytest
import torch
from torch import nn

from protquant.integer.norm import normalized_codes, row_tiles
from protquant.kernels.cpu import CPUBackend
from protquant.kernels.operands import Grid
from protquant.kernels.reference.backend import ReferenceBackend


@pytest.mark.parametrize("length", [0, 1, 7, 130, 9000])
@pytest.mark.parametrize("backend", [ReferenceBackend(), CPUBackend()])
def test_tiles_follow_each_other_and_cover_all_rows(backend, length: int):
    tiles = list(row_tiles(backend, length, max(1, length)))
    assert [row for tile in tiles for row in range(tile.start, tile.stop)] == list(range(length))


def test_codes_are_those_of_the_normalized_rows():
    norm, x, grid = nn.LayerNorm(13), torch.randn(5, 13), Grid(0.02, 100, 0, 255)
    codes = normalized_codes(ReferenceBackend(), norm, x, grid).decode()
    wanted = norm(x).detach().clamp(-100 * 0.02, 155 * 0.02)
    torch.testing.assert_close(codes, wanted, rtol=0, atol=0.01 + 1e-6)
