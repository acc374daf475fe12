"""Tensors of a quantized checkpoint: packed codes, and scalars that are stored in the scheme.

An entry of plain data describes each tensor; its bytes are in the safetensors file under its name:

=========================================  ==============================================================
`{"float32": 0.0125}`                      a few numbers, which are only in the entry
`{"dtype": "float32", "shape": [64, 1]}`   not packed
`{..., "bits": 4, "low": -8}`              integers; the differences to the lowest are packed
`{..., "bits": 5, "pieces": [[0, -8, 16], [1, 0, 8], [2, 0, 8]], "codes": "int8"}`
                                           codes of a weight. A piece has a region (null if the format has
                                           none), a lowest code and a number of codes. The codes of all
                                           pieces are numbered consecutively, and the numbers are packed
`{"same": "name"}`                         the tensor of another name, which shares its memory
=========================================  ==============================================================
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from protquant.quant.packed_codes import MAX_BITS, PackedCodes, pack_integers, unpack_integers

__all__ = ["TensorReader", "TensorWriter"]

_INLINE = 8
_MAPPED_BYTES = 2**16
_DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}


class TensorWriter:
    """Gathers the tensors of a file.

    Attributes
    ----------
    tensors : dict
        Tensors by name, ready to be written: contiguous, on the CPU, without shared memory.
    coded : set of str
        Names of the tensors that are codes of a weight.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.coded: set[str] = set()
        self._seen: dict[tuple[Any, ...], str] = {}
        # Tensors are identified by address, so they must stay alive.
        self._alive: list[Tensor] = []

    def plain(self, name: str, tensor: Tensor) -> None:
        """Add a tensor unpacked and without an entry."""
        self.tensors[name] = _for_file(tensor)

    def put(self, name: str, tensor: Tensor) -> dict[str, Any]:
        """Add a tensor, and return its entry."""
        dtype = _dtype_name(tensor.dtype)
        if tensor.numel() <= _INLINE and tensor.isfinite().all():
            return {dtype: tensor.tolist()} if tensor.numel() else {"dtype": dtype, "shape": list(tensor.shape)}
        key = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if key in self._seen:
            return {"same": self._seen[key]}
        self._seen[key] = name
        self._alive.append(tensor)
        entry: dict[str, Any] = {"dtype": dtype, "shape": list(tensor.shape)}
        if tensor.is_floating_point():
            self.tensors[name] = _for_file(tensor)
            return entry
        values = tensor.cpu().long()
        low, high = (int(end) for end in values.aminmax())
        bits = max((high - low).bit_length(), 1)
        if bits > MAX_BITS:
            raise ValueError(f"integers from {low} to {high} span more than {MAX_BITS} bits")
        self.tensors[name] = pack_integers(values - low, bits)
        return {**entry, "bits": bits, "low": low}

    def put_codes(self, name: str, codes: PackedCodes) -> dict[str, Any]:
        """Add packed codes of a weight, and return their entry."""
        self.tensors[name] = codes.packed.cpu()
        self.coded.add(name)
        return {
            "dtype": _dtype_name(codes.values),
            "shape": list(codes.shape),
            "bits": codes.bits,
            "pieces": codes.pieces,
            "codes": _dtype_name(codes.codes),
        }


class TensorReader:
    """Reads the tensors that entries describe.

    Parameters
    ----------
    tensors : dict
        Tensors of all files. Each tensor is removed when it is read, so that tensors without an entry remain.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self._read: dict[str, Tensor] = {}

    def get(self, name: str, entry: Mapping[str, Any]) -> Tensor:
        """Return the tensor of an entry.

        Raises
        ------
        ValueError
            If the tensor is missing, or has another shape or type than its entry.
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

    def get_codes(self, name: str, entry: Mapping[str, Any]) -> PackedCodes:
        """Return the packed codes of a weight.

        Raises
        ------
        ValueError
            If the codes are missing.
        """
        shape = tuple(int(length) for length in entry["shape"])
        pieces = [(region, int(low), int(count)) for region, low, count in entry["pieces"]]
        packed = _bytes(name, self._pop(name))
        if packed.numel() < _MAPPED_BYTES:
            packed = packed.clone()  # so that a small gain does not keep the whole file mapped
        return PackedCodes(packed, shape, entry["bits"], pieces, _DTYPES[entry["codes"]], _DTYPES[entry["dtype"]])

    def take_rest(self) -> dict[str, Tensor]:
        """Remove and return the tensors without an entry."""
        return {name: self._take(name) for name in list(self.tensors)}

    def _pop(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise ValueError(f"the tensor {name} is missing")
        return self.tensors.pop(name)

    def _take(self, name: str) -> Tensor:
        # A copy with torch's memory alignment: the order of a sum depends on alignment, and so does its last bit. Codes
        # stay mapped, because they are bytes.
        return self._pop(name).clone()

    def _unpack(self, name: str, bits: int, shape: list[int]) -> Tensor:
        packed = _bytes(name, self._take(name))
        try:
            return unpack_integers(packed, bits, math.prod(shape)).view(shape)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def _bytes(name: str, packed: Tensor) -> Tensor:
    if packed.dtype != torch.uint8:
        raise ValueError(f"{name} is {packed.dtype} and should be packed into bytes")
    return packed


def _for_file(tensor: Tensor) -> Tensor:
    # safetensors refuses tensors that share memory.
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _dtype_name(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ValueError(f"tensors of {dtype} cannot be saved")
    return name
