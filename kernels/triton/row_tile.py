"""Tiles of whole rows, for kernels that normalize or quantize a token and need all its channels at once."""

from dataclasses import dataclass

import triton

__all__ = ["UNFUSED", "RowTile"]

# Products are rounded before sums, as in the reference. (AMD's compiler does so by default.)
UNFUSED = {"enable_fp_fusion": False}

# Number of elements of a tile, which are in registers: 32 per thread on NVIDIA, 16 on AMD.
_ELEMENTS = 4096
_MOST_CHANNELS = 32_768


@dataclass(frozen=True)
class RowTile:
    """Number of rows of a tile, of its channels (a power of two, at least those of a row), and of its warps."""

    block_m: int
    block_c: int
    num_warps: int

    @classmethod
    def of(cls, channels: int, elements: int = _ELEMENTS) -> "RowTile":
        """Return the tile for rows of `channels` channels, with about the given number of elements for four warps.

        Raises
        ------
        ValueError
            If registers cannot hold a row.
        """
        if channels > _MOST_CHANNELS:
            raise ValueError(f"rows of {channels} channels do not fit into registers: {_MOST_CHANNELS} at most")
        block_c = max(triton.next_power_of_2(channels), 16)
        return cls(max(elements // block_c, 1), block_c, min(max(4 * block_c // elements, 4), 16))
