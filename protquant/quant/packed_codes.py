"""Packed codes of a weight, as quantized layers and checkpoints store them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Integer, UInt8
from torch import Tensor

from protquant.kernels.packing import pack4, pack_bits, packed_length, unpack4, unpack_bits
from protquant.quant.formats import Codes

__all__ = ["MAX_BITS", "PackedCodes", "Piece", "pack_integers", "unpack_integers"]

_BYTE = 8
_NIBBLE = 4
MAX_BITS = 32

Piece = tuple[int | None, int, int]
"""Region (None if the format has none), lowest code, number of codes."""


@dataclass(frozen=True)
class PackedCodes:
    """Packed codes of a weight.

    Attributes
    ----------
    packed : Tensor, dtype=uint8
        The numbers of the codes. Four-bit numbers of a matrix are packed as in `IntegerWeight`, two rows in a byte, so
        that kernels can use them directly; all others are one stream of bits (`pack_integers`).
    shape : tuple of int
        Shape of the weight.
    bits : int
        Width of a number. The codes of all pieces are numbered consecutively.
    pieces : sequence of tuple
        The pieces in the order of their numbers.
    codes : torch.dtype
        Type of the unpacked codes.
    values : torch.dtype
        Type of the original weight, and of the decoded one.
    """

    packed: UInt8[Tensor, " bytes"]
    shape: tuple[int, ...]
    bits: int
    pieces: Sequence[Piece]
    codes: torch.dtype
    values: torch.dtype

    @classmethod
    def pack(cls, encoded: Codes, bits: int, values: torch.dtype) -> "PackedCodes":
        """Return the packed form of codes and their regions.

        Raises
        ------
        ValueError
            If the codes do not fit into `bits` bits.
        """
        numbers, pieces = _number(encoded)
        if sum(count for _, _, count in pieces) > 2**bits:
            raise ValueError(f"codes do not fit into {bits} bits: {pieces}")
        shape = tuple(encoded.codes.shape)
        packed = pack4(numbers).flatten() if _by_rows(bits, shape) else pack_integers(numbers, bits)
        return cls(packed, shape, bits, pieces, encoded.codes.dtype, values)

    def numbers(self) -> Integer[Tensor, "..."]:
        """Return the numbers of the codes: uint8 for up to eight bits, else int32 or int64.

        Raises
        ------
        ValueError
            If the number of bytes is wrong, or a number is beyond the last piece.
        """
        if _by_rows(self.bits, self.shape):
            rows, columns = self.shape
            if self.packed.numel() != self.expected_bytes:
                raise ValueError(f"a matrix {self.shape} of 4 bits does not take {self.packed.numel()} bytes")
            numbers = unpack4(self.packed.view(-1, columns), rows) if columns else self.packed.view(self.shape)
        else:
            numbers = unpack_integers(self.packed, self.bits, torch.Size(self.shape).numel()).view(self.shape)
        total = sum(count for _, _, count in self.pieces)
        if numbers.numel() and total < 2**self.bits and int(numbers.max()) >= total:
            raise ValueError(f"codes go to {int(numbers.max())}, and there are {total}")
        return numbers

    def unpack(self) -> Codes:
        """Return the unpacked codes.

        Raises
        ------
        ValueError
            If the bytes or pieces do not match the shape.
        """
        numbers = self.numbers()
        if len(self.pieces) == 1 and self.pieces[0][0] is None:
            return Codes(_moved(numbers, self.pieces[0][1], self.codes))
        if not numbers.numel() and not self.pieces:
            return Codes(numbers.to(self.codes))
        numbers = numbers.to(torch.int32) if numbers.dtype == torch.uint8 else numbers
        codes, regions = torch.empty_like(numbers), torch.empty_like(numbers, dtype=torch.uint8)
        first = 0
        for region, low, count in self.pieces:
            if region is None:
                raise ValueError(f"of several pieces one has no region: {self.pieces}")
            inside = (numbers >= first) & (numbers < first + count)
            codes[inside], regions[inside] = numbers[inside] + (low - first), region
            first += count
        return Codes(codes.to(self.codes), regions)

    @property
    def expected_bytes(self) -> int:
        """Number of bytes that the packed numbers take."""
        if _by_rows(self.bits, self.shape):
            return -(-self.shape[0] // 2) * self.shape[1]
        count = torch.Size(self.shape).numel()
        whole, rest = divmod(self.bits - 1, _BYTE)
        return whole * count + packed_length(count, rest + 1)

    def apply(self, change: Callable[[Tensor], Tensor]) -> "PackedCodes":
        """Return the same codes with `change` applied to their bytes, such as a move to a device."""
        return replace(self, packed=change(self.packed))


def _by_rows(bits: int, shape: tuple[int, ...]) -> bool:
    return bits == _NIBBLE and len(shape) == 2


def _moved(numbers: Integer[Tensor, "..."], by: int, dtype: torch.dtype) -> Integer[Tensor, "..."]:
    """Return `numbers + by` in an integer type that holds the sums."""
    if numbers.dtype == torch.uint8 and dtype in (torch.int8, torch.uint8):
        # Bytes wrap around, so that the sum is right even if a number or `by` alone is too large for the type.
        return numbers.add(by % 2**_BYTE).view(dtype)
    return (numbers.to(torch.int32) if numbers.dtype == torch.uint8 else numbers).add(by).to(dtype)


def _number(encoded: Codes) -> tuple[Integer[Tensor, "..."], list[Piece]]:
    """Return pairs of region and code as one number each, and the pieces."""
    codes = encoded.codes
    if not codes.numel():
        return codes, []
    if encoded.regions is None:
        low, high = (int(end) for end in codes.aminmax())
        # Codes that start at 0 are their own numbers, so that kernels and zero points need no shift.
        low = min(low, 0)
        if codes.dtype in (torch.int8, torch.uint8):
            return _moved(codes.view(torch.uint8), -low, torch.uint8), [(None, low, high - low + 1)]
        return codes.int() - low, [(None, low, high - low + 1)]
    codes = codes.int()
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


def pack_integers(numbers: Integer[Tensor, "..."], bits: int) -> UInt8[Tensor, " bytes"]:
    """Pack numbers of any width: whole low bytes first, then the remaining high bits."""
    flat = numbers.reshape(-1)
    if bits == _BYTE and flat.dtype == torch.uint8:
        return flat.clone()
    planes = []
    while bits > _BYTE:
        planes.append((flat & (2**_BYTE - 1)).to(torch.uint8))
        flat, bits = flat >> _BYTE, bits - _BYTE
    return torch.cat([*planes, pack_bits(flat, bits)])


def unpack_integers(packed: UInt8[Tensor, " bytes"], bits: int, count: int) -> Integer[Tensor, " n"]:
    """Return the numbers that `pack_integers` packed, flat: uint8 for up to eight bits, int32, or int64 for 32 bits.

    Raises
    ------
    ValueError
        If the number of bytes is wrong for `count` numbers.
    """
    whole, rest = divmod(bits - 1, _BYTE)
    length = whole * count + packed_length(count, rest + 1)
    if not 1 <= bits <= MAX_BITS or packed.numel() != length:
        raise ValueError(f"{count} codes of {bits} bits take {length} bytes, not {packed.numel()}")
    if bits == _BYTE:
        return packed
    if bits < _BYTE:
        return unpack_bits(packed, bits, count)
    *planes, last = packed.split([*[count] * whole, length - whole * count])
    numbers = unpack_bits(last, rest + 1, count).to(torch.int64 if bits == MAX_BITS else torch.int32)
    for plane in reversed(planes):
        numbers = (numbers << _BYTE) | plane
    return numbers
