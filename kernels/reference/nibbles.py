"""Matrices of four-bit codes, two in a byte: `pack_bits` row by row, so that each row begins with a byte of its own."""

import torch
import torch.nn.functional as F
from jaxtyping import Int, UInt8
from torch import Tensor

from protquant.kernels.reference.packing import pack_bits, unpack_bits

__all__ = ["pack_nibbles", "unpack_nibbles"]


def pack_nibbles(codes: Int[Tensor, "n k"]) -> UInt8[Tensor, "n ceil(k/2)"]:
    """Pack codes 0 to 15, the first of a pair in the low half; a row of odd length is filled up with a code 0.

    Raises
    ------
    ValueError
        For a code that does not fit.
    """
    n, k = codes.shape
    return pack_bits(F.pad(codes.to(torch.int32), (0, k % 2)), 4).view(n, -(-k // 2))


def unpack_nibbles(packed: UInt8[Tensor, "n ceil(k/2)"], channels: int) -> UInt8[Tensor, "n k"]:
    """Codes that `pack_nibbles` packed, of `channels` channels.

    Raises
    ------
    ValueError
        Where rows have another length.
    """
    n, width = packed.shape
    if width != -(-channels // 2):
        raise ValueError(f"{channels} channels of 4 bits take {-(-channels // 2)} bytes, not {width}")
    return unpack_bits(packed, 4, 2 * packed.numel()).view(n, 2 * width)[:, :channels]
