"""The three layouts of small codes: a stream of bits in files, and two for four-bit codes in kernels.

*Bits* (`pack_bits`): one stream of codes of any width. The lowest bit of the first code is the lowest bit of the first
byte, so the first of two four-bit codes is the low half of their byte. Files use this layout.

*Nibbles* (`pack_nibbles`): two neighbors in a row share a byte, and each row begins with a new byte. Triton kernels
read this layout.

*Halves* (`pack4`): rows i and i + ceil(n / 2) of a matrix share a byte, so that unpacking is two passes over contiguous
memory. `IntegerWeight` uses this layout.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Integer, UInt8
from torch import Tensor

__all__ = ["pack4", "pack_bits", "pack_nibbles", "packed_length", "unpack4", "unpack_bits", "unpack_nibbles"]

# This number of codes fills whole bytes for any width, and fits into the 64 bits of an integer.
_CODES_PER_WORD = 8


def packed_length(count: int, bits: int) -> int:
    """Return the number of bytes that `count` codes of `bits` bits take."""
    return (count * _checked(bits) + 7) // 8


def pack_bits(codes: Integer[Tensor, "..."], bits: int) -> UInt8[Tensor, " bytes"]:
    """Pack codes, row by row, into bytes; zeros fill the last byte.

    Parameters
    ----------
    codes : Tensor
        Integers from 0 to 2^bits - 1; add an offset to signed codes first.
    bits : int
        Width of a code, 1 to 8.

    Returns
    -------
    Tensor, shape=(ceil(n * bits / 8),), dtype=uint8

    Raises
    ------
    ValueError
        If a code does not fit, or `bits` is not in 1 to 8.
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
    # The sum is a bitwise or. Eight-bit codes may set the sign bit, which serves as the 64th bit.
    packed = (words << place * bits).sum(1)
    return ((packed[:, None] >> 8 * place[:bits]) & 255).to(torch.uint8).reshape(-1)[:length].clone()


def unpack_bits(packed: UInt8[Tensor, "..."], bits: int, count: int) -> UInt8[Tensor, " n"]:
    """Return the codes that `pack_bits` packed, as a vector.

    Raises
    ------
    ValueError
        If the number of bytes does not fit `count` codes.
    """
    length = packed_length(count, bits)
    if packed.numel() != length:
        raise ValueError(f"{count} codes of {bits} bits take {length} bytes, not {packed.numel()}")
    bytes_of_words = packed.new_zeros(-(-count // _CODES_PER_WORD), bits, dtype=torch.int64)
    bytes_of_words.view(-1)[:length] = packed.reshape(-1).long()
    place = torch.arange(_CODES_PER_WORD, device=packed.device)
    words = (bytes_of_words << 8 * place[:bits]).sum(1)
    return ((words[:, None] >> place * bits) & 2**bits - 1).to(torch.uint8).reshape(-1)[:count].clone()


def pack_nibbles(codes: Integer[Tensor, "n k"]) -> UInt8[Tensor, "n k-k//2"]:
    """Pack codes 0 to 15, the first of a pair in the low half; a code 0 completes a row of odd length.

    Raises
    ------
    ValueError
        If a code does not fit.
    """
    n, k = codes.shape
    return pack_bits(F.pad(codes.to(torch.int32), (0, k % 2)), 4).view(n, -(-k // 2))


def unpack_nibbles(packed: UInt8[Tensor, "n half"], channels: int) -> UInt8[Tensor, "n k"]:
    """Return the codes of `channels` channels that `pack_nibbles` packed.

    Raises
    ------
    ValueError
        If rows have another length.
    """
    n, width = packed.shape
    if width != -(-channels // 2):
        raise ValueError(f"{channels} channels of 4 bits take {-(-channels // 2)} bytes, not {width}")
    return unpack_bits(packed, 4, 2 * packed.numel()).view(n, 2 * width)[:, :channels]


def pack4(codes: Integer[Tensor, "n k"]) -> UInt8[Tensor, "(n+1)//2 k"]:
    """Pack codes 0 to 15, row i in the low half of a byte and row i + ceil(n / 2) in the high half."""
    half = -(-len(codes) // 2)
    low, high = codes[:half].to(torch.uint8), codes[half:].to(torch.uint8)
    packed = low.clone()
    packed[: len(high)] |= high << 4
    return packed


def unpack4(packed: UInt8[Tensor, "half k"], rows: int) -> UInt8[Tensor, "n k"]:
    """Return the codes that `pack4` packed; `rows` is their number of rows."""
    half = len(packed)
    codes = torch.empty(2 * half, packed.shape[1], dtype=torch.uint8, device=packed.device)
    torch.bitwise_and(packed, 15, out=codes[:half])
    torch.bitwise_right_shift(packed, 4, out=codes[half:])
    return codes[:rows]


def _checked(bits: int) -> int:
    if not 1 <= bits <= 8:
        raise ValueError(f"bits {bits} is not in 1 to 8")
    return bits
