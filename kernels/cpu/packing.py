"""Weights in the layout that oneDNN's int8 products read.

oneDNN packs weights byte by byte, which takes half of the time to load a model. Its layout is simple: blocks of 64
outputs, with groups of 4 inputs in each block, and at the end the negative sum of each output's weights, for zero
points of the input. oneDNN packs the first weight of each shape. If the result has this layout, the code here packs
the later ones.
"""

import ctypes
import warnings
from typing import Any

import torch
from jaxtyping import Int8
from torch import Tensor

__all__ = ["pack_weight", "raw_bytes"]

_OUTPUTS, _INPUTS = 64, 4

_known: dict[tuple[int, int], Tensor] = {}
"""One packed weight for each shape that has the layout above; new weights begin as copies of it."""


def pack_weight(steps: Int8[Tensor, "n k"]) -> Tensor:
    """Return a packed weight for `torch.ops.onednn.qlinear_pointwise`: a tensor that only oneDNN can read."""
    known = _known.get((steps.shape[0], steps.shape[1]))
    if known is not None:
        packed = known.clone()
        _fill(packed, steps)
        return packed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = torch.ops.onednn.qlinear_prepack(steps.contiguous(), None)
    if _has_known_layout(packed, steps):
        _known[steps.shape[0], steps.shape[1]] = packed
    return packed


def raw_bytes(packed: Tensor) -> Int8[Tensor, " bytes"]:
    """Return the memory of a packed weight; it must not outlive the weight."""
    size: int = torch.ops.mkldnn._nbytes(packed)  # noqa: SLF001
    address: int = torch.ops.mkldnn.data_ptr(packed)
    return torch.frombuffer((ctypes.c_int8 * size).from_address(address), dtype=torch.int8)


def _has_known_layout(packed: Tensor, steps: Int8[Tensor, "n k"]) -> bool:
    rows, columns = steps.shape
    if rows % _OUTPUTS or columns % _INPUTS or not hasattr(torch.ops.mkldnn, "data_ptr"):
        return False
    raw = raw_bytes(packed)
    if len(raw) != rows * columns + 4 * rows:
        return False
    blocks, sums = raw[: rows * columns].view(torch.int32), raw[rows * columns :].view(torch.int32)
    return torch.equal(blocks, _blocked(steps).reshape(-1)) and torch.equal(sums, -steps.sum(1, dtype=torch.int32))


def _fill(packed: Tensor, steps: Int8[Tensor, "n k"]) -> None:
    raw, (rows, columns) = raw_bytes(packed), steps.shape
    blocks, sums = raw[: rows * columns].view(torch.int32), raw[rows * columns :].view(torch.int32)
    blocked = _blocked(steps)
    blocks.view(blocked.shape).copy_(blocked)
    # A product with ones gives all sums quickly and exactly: partial sums fit into 16 bits, and sums into float32.
    sums.copy_(_product_with_ones(packed, rows, columns).neg_())


def _blocked(steps: Int8[Tensor, "n k"]) -> Tensor:
    """Return weights block by block, four of them in an element."""
    rows, columns = steps.shape
    return steps.contiguous().view(torch.int32).view(rows // _OUTPUTS, _OUTPUTS, columns // _INPUTS).transpose(1, 2)


def _product_with_ones(packed: Tensor, rows: int, columns: int) -> Tensor:
    operands = (torch.ones(1, columns, dtype=torch.uint8), 1.0, 0, packed)
    scale, zero = torch.ones(rows), torch.zeros(rows, dtype=torch.int32)
    written: tuple[Any, ...] = (None, 1.0, 0, torch.float32, "none", [], "none")
    sums: Tensor = torch.ops.onednn.qlinear_pointwise(*operands, scale, zero, *written)[0]
    return sums
