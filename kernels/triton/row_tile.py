"""Tiles of whole rows: what normalizes or quantizes a token wants all its channels at once."""

from dataclasses import dataclass

import triton

__all__ = ["UNFUSED", "RowTile"]

# Products and sums are rounded apart, as the references round them. (AMD's compiler does so unless told otherwise.)
UNFUSED = {"enable_fp_fusion": False}

# Elements of a tile, which threads hold in registers; the same on all architectures: 32 a thread on NVIDIA, 16 on AMD.
_ELEMENTS = 4096
_MOST_CHANNELS = 32_768


@dataclass(frozen=True)
class RowTile:
    """Rows of a tile, its channels, a power of two and at least those of a row, and how it is spread over warps."""

    block_m: int
    block_c: int
    num_warps: int

    @classmethod
    def of(cls, channels: int, elements: int = _ELEMENTS) -> "RowTile":
        """The tile for rows of so many channels, of about so many elements for four warps.

        Raises
        ------
        ValueError
            For more channels than registers hold.
        """
        if channels > _MOST_CHANNELS:
            raise ValueError(f"rows of {channels} channels do not fit into registers: {_MOST_CHANNELS} at most")
        block_c = max(triton.next_power_of_2(channels), 16)
        return cls(max(elements // block_c, 1), block_c, min(max(4 * block_c // elements, 4), 16))
