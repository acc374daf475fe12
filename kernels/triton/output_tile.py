"""The tile of a product that a program computes."""

import triton
import triton.language as tl

__all__ = ["GROUP_M", "output_tile"]

GROUP_M = 8


@triton.jit
def output_tile(M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr):
    """Return rows and columns of this program's tile, int64, because L x L x channels exceeds 2^31.

    Programs go down a group of rows before they go right, so that rows and weights stay in the cache.
    """
    program = tl.program_id(0)
    rows_of_tiles, columns_of_tiles = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    group = program // (GROUP_M * columns_of_tiles)
    height = min(rows_of_tiles - group * GROUP_M, GROUP_M)
    inside = program % (GROUP_M * columns_of_tiles)
    rows = (group * GROUP_M + inside % height) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = (inside // height) * BLOCK_N + tl.arange(0, BLOCK_N)
    return rows.to(tl.int64), columns.to(tl.int64)
