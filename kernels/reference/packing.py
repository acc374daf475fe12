"""Codes of b bits without gaps between them: what goes into files, and what four-bit kernels read.

The codes are one stream of bits, the lowest bit of the first code in the lowest bit of the first byte: of four-bit
codes the first of a pair is the low half of their byte.
"""

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

__all__ = ["pack_bits", "packed_length", "unpack_bits"]

# So many codes are a whole number of bytes whatever their width, and at most the 64 bits of an integer.
_CODES_PER_WORD = 8


def packed_length(count: int, bits: int) -> int:
    """Bytes that `count` codes of `bits` bits take."""
    return (count * _checked(bits) + 7) // 8


def pack_bits(codes: Int[Tensor, "..."], bits: int) -> UInt8[Tensor, " bytes"]:
    """Pack codes, row by row, into bytes; the last byte is filled up with zeros.

    Parameters
    ----------
    codes : Tensor
        Integers from 0 to 2^bits - 1: who has signed codes adds an offset first.
    bits : int
        Width of a code, 1 to 8.

    Returns
    -------
    Tensor, shape=(ceil(n * bits / 8),), dtype=uint8

    Raises
    ------
    ValueError
        For a code that does not fit, or bits that are not in 1 to 8.
    """
    length = packed_length(codes.numel(), bits)
    flat = codes.reshape(-1)
    if len(flat):
        lowest, highest = flat.aminmax()
        if int(lowest) < 0 or int(highest) >= 2**bits:
            raise ValueError(f"codes from {int(lowest)} to {int(highest)} do not fit into {bits} bits without a sign")
    words = flat.new_zeros(-(-len(flat) // _CODES_PER_WORD), _CODES_PER_WORD, dtype=torch.int64)
    words.view(-1)[: len(flat)] = flat.long()
    place = torch.arange(_CODES_PER_WORD, device=flat.device)
    # The sum is a bitwise or; that of eight-bit codes may end in the sign bit, which is but the 64th.
    packed = (words << place * bits).sum(1)
    return ((packed[:, None] >> 8 * place[:bits]) & 255).to(torch.uint8).reshape(-1)[:length].clone()


def unpack_bits(packed: UInt8[Tensor, " bytes"], bits: int, count: int) -> UInt8[Tensor, " n"]:
    """Codes that `pack_bits` packed, flat.

    Raises
    ------
    ValueError
        Where the number of bytes is not that of `count` codes.
    """
    length = packed_length(count, bits)
    if packed.numel() != length:
        raise ValueError(f"{count} codes of {bits} bits take {length} bytes, not {packed.numel()}")
    bytes_of_words = packed.new_zeros(-(-count // _CODES_PER_WORD), bits, dtype=torch.int64)
    bytes_of_words.view(-1)[:length] = packed.reshape(-1).long()
    place = torch.arange(_CODES_PER_WORD, device=packed.device)
    words = (bytes_of_words << 8 * place[:bits]).sum(1)
    return ((words[:, None] >> place * bits) & 2**bits - 1).to(torch.uint8).reshape(-1)[:count].clone()


def _checked(bits: int) -> int:
    if not 1 <= bits <= 8:
        raise ValueError(f"bits {bits} is not in 1 to 8")
    return bits
