"""Tensors of a quantized checkpoint: codes packed bit by bit, scalars beside the settings that they belong to.

A tensor is described by an entry, which is plain data, and its bytes are in the safetensors file under its name:

=========================================  ==============================================================
`{"float32": 0.0125}`                      a few numbers, which are the entry itself; nothing is in the file
`{"dtype": "float32", "shape": [64, 1]}`   as it is
`{..., "bits": 4, "low": -8}`              integers: what is packed is the difference to the lowest
`{..., "bits": 5, "pieces": [[0, -8, 16], [1, 0, 8], [2, 0, 8]], "codes": "int8"}`
                                           codes of a weight. Of a piece are given its region (null if the
                                           format has none), its lowest code and how many it has. Pieces are
                                           numbered through one after the other; that number is packed
`{"same": "name"}`                         the tensor of another name, which shares its memory
=========================================  ==============================================================
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from protquant.kernels.reference import pack_bits, packed_length, unpack_bits
from protquant.quant.formats import Codes, StaticQuantizer

__all__ = ["TensorReader", "TensorWriter"]

_INLINE = 8
_BYTE = 8
_MAX_BITS = 32
_DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}


class TensorWriter:
    """Gathers what goes into the file.

    Attributes
    ----------
    tensors : dict
        By name, ready to be written: contiguous, on the CPU, none sharing memory with another.
    coded : set of str
        Names of those that are codes of a weight.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.coded: set[str] = set()
        self._seen: dict[tuple[Any, ...], str] = {}
        # What is known by its address must live as long as that is.
        self._kept: list[Tensor] = []

    def plain(self, name: str, tensor: Tensor) -> None:
        """Take a tensor as it is, without an entry."""
        self.tensors[name] = _for_file(tensor)

    def put(self, name: str, tensor: Tensor) -> dict[str, Any]:
        """Take a tensor, and return its entry."""
        dtype = _dtype_name(tensor.dtype)
        if tensor.numel() <= _INLINE and tensor.isfinite().all():
            return {dtype: tensor.tolist()} if tensor.numel() else {"dtype": dtype, "shape": list(tensor.shape)}
        key = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if key in self._seen:
            return {"same": self._seen[key]}
        self._seen[key] = name
        self._kept.append(tensor)
        entry: dict[str, Any] = {"dtype": dtype, "shape": list(tensor.shape)}
        if tensor.is_floating_point():
            self.tensors[name] = _for_file(tensor)
            return entry
        values = tensor.cpu().long()
        low, high = (int(end) for end in values.aminmax())
        bits = max((high - low).bit_length(), 1)
        if bits > _MAX_BITS:
            raise ValueError(f"integers from {low} to {high} span more than {_MAX_BITS} bits")
        self.tensors[name] = _pack(values - low, bits)
        return {**entry, "bits": bits, "low": low}

    def put_weight(self, name: str, weight: Tensor, quantizer: StaticQuantizer) -> dict[str, Any]:
        """Take the codes of a decoded weight, and return its entry.

        Raises
        ------
        ValueError
            If the weight is not on the grid of its quantizer, or its codes are too many for their bits.
        """
        encoded = quantizer.recode(weight.detach())
        if not torch.equal(quantizer.decode(encoded).to(weight.dtype), weight):
            raise ValueError(f"the weight is not on the grid of its {type(quantizer).__name__}")
        numbers, pieces = _number(encoded)
        bits = quantizer.code_bits
        if sum(count for _, _, count in pieces) > 2**bits:
            raise ValueError(f"the codes of {type(quantizer).__name__} do not fit into its {bits} bits: {pieces}")
        self.tensors[name] = _pack(numbers.cpu(), bits)
        self.coded.add(name)
        return {
            "dtype": _dtype_name(weight.dtype),
            "shape": list(weight.shape),
            "bits": bits,
            "pieces": pieces,
            "codes": _dtype_name(encoded.codes.dtype),
        }


class TensorReader:
    """Gives tensors of entries.

    Parameters
    ----------
    tensors : dict
        Those of the file. What is read is taken out, so that in the end it holds what no entry asked for.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self._read: dict[str, Tensor] = {}

    def get(self, name: str, entry: Mapping[str, Any]) -> Tensor:
        """Return the tensor of an entry.

        Raises
        ------
        ValueError
            If it is not in the file, or of another shape or type than the entry says.
        """
        if "same" in entry:
            if entry["same"] not in self._read:
                raise ValueError(f"{name} is said to be the tensor {entry['same']}, which does not come before it")
            return self._read[entry["same"]]
        if "dtype" not in entry:
            ((kind, values),) = entry.items()
            return torch.tensor(values, dtype=_DTYPES[kind])
        dtype, shape = _DTYPES[entry["dtype"]], [int(length) for length in entry["shape"]]
        if not math.prod(shape):
            return torch.empty(shape, dtype=dtype)
        if "bits" in entry:
            numbers = self._unpack(name, entry["bits"], shape)
            tensor = (numbers.long() + int(entry["low"])).to(dtype)
        else:
            tensor = self._take(name)
            if tensor.dtype != dtype or list(tensor.shape) != shape:
                raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)} and should be {dtype} {tuple(shape)}")
        self._read[name] = tensor
        return tensor

    def get_weight(self, name: str, entry: Mapping[str, Any], quantizer: StaticQuantizer) -> Tensor:
        """Return the decoded weight of an entry.

        Raises
        ------
        ValueError
            If its codes are not in the file, are of another number, or decode to another shape.
        """
        shape = [int(length) for length in entry["shape"]]
        numbers = self._unpack(name, entry["bits"], shape)
        encoded = _codes(numbers, entry["pieces"], _DTYPES[entry["codes"]])
        weight = quantizer.decode(encoded).to(_DTYPES[entry["dtype"]])
        if list(weight.shape) != shape:
            raise ValueError(f"{name} decodes to {tuple(weight.shape)} and should be {tuple(shape)}")
        return weight

    def take_rest(self) -> dict[str, Tensor]:
        """Take the tensors that no entry asked for."""
        return {name: self._take(name) for name in list(self.tensors)}

    def _take(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise ValueError(f"the tensor {name} is missing")
        # A copy, which lies in memory as torch aligns it, not where it lay in the file: sums are taken in another order
        # where the first element is not aligned, and differ in the last bit.
        return self.tensors.pop(name).clone()

    def _unpack(self, name: str, bits: int, shape: list[int]) -> Tensor:
        packed = self._take(name)
        if packed.dtype != torch.uint8:
            raise ValueError(f"{name} is {packed.dtype} and should be packed into bytes")
        try:
            return _unpack(packed, bits, math.prod(shape)).view(shape)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def _for_file(tensor: Tensor) -> Tensor:
    # safetensors takes no tensors that share memory.
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _dtype_name(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ValueError(f"tensors of {dtype} cannot be saved")
    return name


def _number(encoded: Codes) -> tuple[Tensor, list[tuple[int | None, int, int]]]:
    """Pairs of region and code as one number each, and the pieces: region (if any), lowest code, how many numbers."""
    codes = encoded.codes.int()
    if not codes.numel():
        return codes, []
    if encoded.regions is None:
        low, high = (int(end) for end in codes.aminmax())
        return codes - low, [(None, low, high - low + 1)]
    pieces: list[tuple[int | None, int, int]] = []
    numbers = torch.empty_like(codes)
    first = 0
    for region in torch.unique(encoded.regions).tolist():
        inside = encoded.regions == region
        low, high = (int(end) for end in codes[inside].aminmax())
        numbers[inside] = codes[inside] + (first - low)
        pieces.append((region, low, high - low + 1))
        first += high - low + 1
    return numbers, pieces


def _codes(numbers: Tensor, pieces: list[list[Any]], dtype: torch.dtype) -> Codes:
    """The inverse of `_number`."""
    total = sum(count for _, _, count in pieces)
    if numbers.numel() and int(numbers.max()) >= total:
        raise ValueError(f"codes go to {int(numbers.max())}, and there are {total}")
    if len(pieces) == 1 and pieces[0][0] is None:
        return Codes((numbers + pieces[0][1]).to(dtype))
    codes, regions = torch.empty_like(numbers), torch.empty_like(numbers, dtype=torch.uint8)
    first = 0
    for region, low, count in pieces:
        inside = (numbers >= first) & (numbers < first + count)
        codes[inside], regions[inside] = numbers[inside] + (low - first), region
        first += count
    return Codes(codes.to(dtype), regions)


def _pack(numbers: Tensor, bits: int) -> Tensor:
    """Pack numbers of any width: whole low bytes first, then what is above them in as many bits as it has."""
    flat = numbers.reshape(-1)
    planes = []
    while bits > _BYTE:
        planes.append((flat & (2**_BYTE - 1)).to(torch.uint8))
        flat, bits = flat >> _BYTE, bits - _BYTE
    return torch.cat([*planes, pack_bits(flat, bits)])


def _unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """Numbers that `_pack` packed, int32 (int64 where they need it), flat."""
    whole, rest = divmod(bits - 1, _BYTE)
    length = whole * count + packed_length(count, rest + 1)
    if not 1 <= bits <= _MAX_BITS or packed.numel() != length:
        raise ValueError(f"{count} codes of {bits} bits take {length} bytes, not {packed.numel()}")
    *planes, last = packed.split([*[count] * whole, length - whole * count])
    numbers = unpack_bits(last, rest + 1, count).to(torch.int64 if bits == _MAX_BITS else torch.int32)
    for plane in reversed(planes):
        numbers = (numbers << _BYTE) | plane
    return numbers
