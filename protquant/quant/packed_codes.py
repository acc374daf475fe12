"""Codes of a weight in as many bits as they have: what a checkpoint holds, and a layer that is not to be in float."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from protquant.kernels.reference import pack_bits, packed_length, unpack_bits
from protquant.quant.formats import Codes

__all__ = ["MAX_BITS", "PackedCodes", "Piece", "pack_integers", "unpack_integers"]

_BYTE = 8
MAX_BITS = 32

Piece = tuple[int | None, int, int]
"""Region (None if the format has none), lowest code, how many codes."""


@dataclass(frozen=True)
class PackedCodes:
    """Codes of a weight, bit by bit.

    Attributes
    ----------
    packed : Tensor, dtype=uint8
        Of `pack_integers`.
    shape : tuple of int
        Of the weight.
    bits : int
        Of a number: pieces are numbered through one after the other, and that number is packed.
    pieces : sequence of tuple
    codes : torch.dtype
        Of the codes when they are unpacked.
    values : torch.dtype
        Of the weight when it is decoded.
    """

    packed: UInt8[Tensor, " bytes"]
    shape: tuple[int, ...]
    bits: int
    pieces: Sequence[Piece]
    codes: torch.dtype
    values: torch.dtype

    @classmethod
    def pack(cls, encoded: Codes, bits: int, values: torch.dtype) -> "PackedCodes":
        """Pack codes, and regions where there are any.

        Raises
        ------
        ValueError
            If they are too many for their bits.
        """
        numbers, pieces = _number(encoded)
        if sum(count for _, _, count in pieces) > 2**bits:
            raise ValueError(f"codes do not fit into {bits} bits: {pieces}")
        packed = pack_integers(numbers, bits)
        return cls(packed, tuple(encoded.codes.shape), bits, pieces, encoded.codes.dtype, values)

    def unpack(self) -> Codes:
        """The codes that were packed.

        Raises
        ------
        ValueError
            If bytes and pieces are not those of so many codes.
        """
        count = torch.Size(self.shape).numel()
        numbers = unpack_integers(self.packed, self.bits, count).view(self.shape)
        total = sum(each for _, _, each in self.pieces)
        if numbers.numel() and int(numbers.max()) >= total:
            raise ValueError(f"codes go to {int(numbers.max())}, and there are {total}")
        if len(self.pieces) == 1 and self.pieces[0][0] is None:
            return Codes((numbers + self.pieces[0][1]).to(self.codes))
        codes, regions = torch.empty_like(numbers), torch.empty_like(numbers, dtype=torch.uint8)
        first = 0
        for region, low, each in self.pieces:
            if region is None:
                raise ValueError(f"of several pieces one has no region: {self.pieces}")
            inside = (numbers >= first) & (numbers < first + each)
            codes[inside], regions[inside] = numbers[inside] + (low - first), region
            first += each
        return Codes(codes.to(self.codes), regions)

    def apply(self, change: Callable[[Tensor], Tensor]) -> "PackedCodes":
        """The same with its bytes put through `change`, which moves them to a device."""
        return replace(self, packed=change(self.packed))


def _number(encoded: Codes) -> tuple[Int[Tensor, "..."], list[Piece]]:
    """Pairs of region and code as one number each, and the pieces."""
    codes = encoded.codes.int()
    if not codes.numel():
        return codes, []
    if encoded.regions is None:
        low, high = (int(end) for end in codes.aminmax())
        return codes - low, [(None, low, high - low + 1)]
    pieces: list[Piece] = []
    numbers = torch.empty_like(codes)
    first = 0
    for region in torch.unique(encoded.regions).tolist():
        inside = encoded.regions == region
        low, high = (int(end) for end in codes[inside].aminmax())
        numbers[inside] = codes[inside] + (first - low)
        pieces.append((region, low, high - low + 1))
        first += high - low + 1
    return numbers, pieces


def pack_integers(numbers: Int[Tensor, "..."], bits: int) -> UInt8[Tensor, " bytes"]:
    """Pack numbers of any width: whole low bytes first, then what is above them in as many bits as it has."""
    flat = numbers.reshape(-1)
    planes = []
    while bits > _BYTE:
        planes.append((flat & (2**_BYTE - 1)).to(torch.uint8))
        flat, bits = flat >> _BYTE, bits - _BYTE
    return torch.cat([*planes, pack_bits(flat, bits)])


def unpack_integers(packed: UInt8[Tensor, " bytes"], bits: int, count: int) -> Int[Tensor, " n"]:
    """Numbers that `pack_integers` packed, int32 (int64 where they need it), flat.

    Raises
    ------
    ValueError
        Where the number of bytes is not that of `count` numbers.
    """
    whole, rest = divmod(bits - 1, _BYTE)
    length = whole * count + packed_length(count, rest + 1)
    if not 1 <= bits <= MAX_BITS or packed.numel() != length:
        raise ValueError(f"{count} codes of {bits} bits take {length} bytes, not {packed.numel()}")
    *planes, last = packed.split([*[count] * whole, length - whole * count])
    numbers = unpack_bits(last, rest + 1, count).to(torch.int64 if bits == MAX_BITS else torch.int32)
    for plane in reversed(planes):
        numbers = (numbers << _BYTE) | plane
    return numbers
