"""Convert quantizers, which simulate, to operands of integer operations; errors say why there is no integer kernel."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from protquant.files.mapped_memory import forget_pages
from protquant.kernels.operands import Grid, IntegerWeight, TokenGrid
from protquant.kernels.packing import pack4, unpack4
from protquant.quant.formats import Quantizer
from protquant.quant.formats.dint import DIntQuantizer
from protquant.quant.formats.uniform import DynamicUniformQuantizer, UniformQuantizer
from protquant.quant.modules import ActivationQuantizer, QuantizedLinear
from protquant.quant.packed_codes import PackedCodes
from protquant.sites import Tap

__all__ = [
    "NoIntegerKernelError",
    "grid_of",
    "input_grid",
    "integer_weight",
    "only_input",
    "reordered",
    "shared_input",
    "stacked",
    "tap_grid",
]


class NoIntegerKernelError(Exception):
    """A layer or product has no integer kernel; the message names it and the reason."""


def grid_of(quantizer: Quantizer | None, name: str) -> Grid | TokenGrid:
    """Return the grid of an activation.

    Raises
    ------
    NoIntegerKernelError
        If it is in float, or in a format that no integer product reads.
    """
    if quantizer is None:
        raise NoIntegerKernelError(f"{name} is in float")
    if quantizer.code_bits > 8:
        raise NoIntegerKernelError(f"{name} has {quantizer.code_bits} bits")
    if isinstance(quantizer, DynamicUniformQuantizer):
        if quantizer.form.group_size is not None:
            raise NoIntegerKernelError(f"{name} has scales of groups within a token")
        return TokenGrid(quantizer.form.bits, quantizer.form.symmetric)
    if not isinstance(quantizer, UniformQuantizer):
        raise NoIntegerKernelError(
            f"{name} is {type(quantizer).__name__.removesuffix('Quantizer')}, which is not uniform"
        )
    if quantizer.scale.numel() != 1:
        raise NoIntegerKernelError(f"{name} has a scale per channel")
    low, high = quantizer.codes.tolist()
    zero = 0 if quantizer.zero_point is None else int(quantizer.zero_point)
    return Grid(float(quantizer.scale), zero, low, high)


def tap_grid(tap: nn.Module, name: str) -> Grid | None:
    """Return the grid of an operand of a product, or None if it is in float.

    Raises
    ------
    NoIntegerKernelError
        If it is in a format that no integer product reads, or has scales along the axis that is summed over.
    """
    if isinstance(tap, Tap):
        return None
    assert isinstance(tap, ActivationQuantizer)
    grid = grid_of(tap.quantizer, name)
    if isinstance(grid, TokenGrid):
        raise NoIntegerKernelError(f"{name} has a scale per token")
    return grid


def input_grid(layer: nn.Module, name: str) -> Grid | TokenGrid:
    """Return the grid of the input of a quantized linear layer.

    Raises
    ------
    NoIntegerKernelError
        If the input is in float, or its format has no grid.
    """
    if not isinstance(layer, QuantizedLinear) or layer.input_quantizer is None:
        raise NoIntegerKernelError(f"{name}.input is in float")
    return grid_of(layer.input_quantizer.quantizer, f"{name}.input")


def integer_weight(layer: nn.Module, name: str) -> IntegerWeight:
    """Return the weight of a quantized linear layer in small integers.

    Raises
    ------
    NoIntegerKernelError
        If it is in float, or in a format whose values are not an integer times a scale.
    """
    if not isinstance(layer, QuantizedLinear) or layer.weight_quantizer is None:
        raise NoIntegerKernelError(f"{name}.weight is in float")
    quantizer = layer.weight_quantizer
    bias = None if layer.bias is None else layer.bias.detach().float()
    if not isinstance(quantizer, UniformQuantizer | DIntQuantizer):
        raise NoIntegerKernelError(f"{name}.weight is {type(quantizer).__name__.removesuffix('Quantizer')}")
    if quantizer.code_bits > 8:
        raise NoIntegerKernelError(f"{name}.weight has {quantizer.code_bits} bits")
    packed = layer.packed_codes
    assert packed is not None
    rows, group = layer.out_features, quantizer.group_size
    scale = _per_group(quantizer.scale, rows)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    if quantizer.zero_point is not None:
        zero = _per_group(quantizer.zero_point, rows)
    if isinstance(quantizer, DIntQuantizer):
        if quantizer.code_bits > 4 or quantizer.special != 0.5:
            raise NoIntegerKernelError(
                f"{name}.weight is dint with {quantizer.code_bits} bits or another fraction than 1/2"
            )
        if quantizer.code_bits == 4:
            return IntegerWeight(_nibbles(packed), scale, zero.to(torch.uint8), bias, rows, "dint4", group)
        codes = packed.unpack().codes.int()
        special = codes - (2**quantizer.code_bits - 2)
        codes = torch.where(special >= 0, 14 + special, codes)
        return IntegerWeight(pack4(codes), scale, zero.to(torch.uint8), bias, rows, "dint4", group)
    low, high = quantizer.codes.tolist()
    if high - low < 16:
        first = packed.pieces[0][1] if packed.pieces else 0
        return IntegerWeight(_nibbles(packed), scale, (zero - first).to(torch.uint8), bias, rows, "int4", group)
    codes = packed.unpack().codes
    if codes.dtype == torch.int8 and not bool(zero.any()):
        return IntegerWeight(codes, scale, None, bias, rows, "int8", group)
    if bool((low - zero >= -128).all()) and bool((high - zero <= 127).all()):
        spread_zero = zero if group is None else zero.repeat_interleave(group, 1)[:, : codes.shape[1]]
        return IntegerWeight((codes.int() - spread_zero).to(torch.int8), scale, None, bias, rows, "int8", group)
    moved = (codes.int() - 128).to(torch.int8)
    return IntegerWeight(moved, scale, (zero - 128).to(torch.int8), bias, rows, "int8", group)


def shared_input(
    parent: nn.Module, names: Sequence[str], path: str
) -> tuple[Grid | TokenGrid, dict[str, IntegerWeight]]:
    """Return the grid of an input that several layers share, and their weights by name.

    Raises
    ------
    NoIntegerKernelError
        If they do not read the same codes, one has no integer kernel, or one transforms its input.
    """
    grids, weights = {}, {}
    for name in names:
        layer, where = parent.get_submodule(name), f"{path}.{name}"
        grids[name] = input_grid(layer, where)
        weights[name] = integer_weight(layer, where)
        if isinstance(layer, QuantizedLinear) and layer.transforms is not None:
            raise NoIntegerKernelError(f"{where} changes its input before it is quantized")
    first = grids[names[0]]
    other = next((name for name in names if grids[name] != first), None)
    if other is not None:
        raise NoIntegerKernelError(f"{path}.{names[0]} and {path}.{other} read different codes")
    return first, weights


def only_input(parent: nn.Module, name: str, path: str) -> tuple[Grid | TokenGrid, IntegerWeight]:
    """Return the grid and the weight of one layer; see `shared_input`."""
    grid, weights = shared_input(parent, (name,), path)
    return grid, weights[name]


def _nibbles(packed: PackedCodes) -> Tensor:
    """Return four-bit codes with two rows in a byte, packed as in `IntegerWeight`."""
    if packed.bits == 4:
        return packed.packed.view(-1, packed.shape[1])
    return pack4(packed.numbers())


def _per_group(values: Tensor, rows: int) -> Tensor:
    """Return scales or zero points in the shape (rows, groups)."""
    values = values.reshape(1, 1) if values.numel() == 1 else values.reshape(len(values), -1)
    return values.expand(rows, -1).contiguous()


def reordered(weight: IntegerWeight, rows: Sequence[int]) -> IntegerWeight:
    """Return the weight with the given outputs, in the given order."""
    index = torch.tensor(rows, device=weight.codes.device)
    made = _of_codes(weight, _codes(weight)[index], lambda values: values[index])
    forget_pages([weight.codes])  # The codes in the old order are not needed any more.
    return made


def stacked(weights: Sequence[IntegerWeight]) -> IntegerWeight:
    """Return one weight with the outputs of several weights that have the same input.

    Raises
    ------
    NoIntegerKernelError
        If their formats differ.
    """
    first = weights[0]
    if len({(w.kind, w.group_size, w.zero is None) for w in weights}) > 1:
        raise NoIntegerKernelError("weights that are multiplied together have different formats")
    if len(weights) == 1:
        return first
    biases = [w.scale.new_zeros(w.out_features) if w.bias is None else w.bias for w in weights]
    bias = torch.cat(biases) if any(w.bias is not None for w in weights) else None
    whole = replace(
        first,
        scale=torch.cat([w.scale for w in weights]),
        zero=None if first.zero is None else torch.cat([w.zero for w in weights if w.zero is not None]),
        bias=bias,
    )
    made = _of_codes(whole, torch.cat([_codes(w) for w in weights]), lambda values: values)
    forget_pages([w.codes for w in weights])  # The single weights are not needed any more.
    return made


def _codes(weight: IntegerWeight) -> Tensor:
    """Return unpacked codes."""
    if weight.kind == "int8":
        return weight.codes
    return unpack4(weight.codes, weight.out_features)


def _of_codes(weight: IntegerWeight, codes: Tensor, choose: Callable[[Tensor], Tensor]) -> IntegerWeight:
    return replace(
        weight,
        codes=codes if weight.kind == "int8" else pack4(codes),
        scale=choose(weight.scale),
        zero=None if weight.zero is None else choose(weight.zero),
        bias=None if weight.bias is None else choose(weight.bias),
        out_features=len(codes),
    )
