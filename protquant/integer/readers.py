"""Layers that read one tensor: quantized once, for all of them."""

from collections.abc import Sequence

from torch import nn

from protquant.integer.linear import input_grid
from protquant.integer.operands import NoIntegerKernelError, integer_weight
from protquant.kernels.operands import Grid, IntegerWeight, TokenGrid
from protquant.quant.modules import QuantizedLinear

__all__ = ["only_input", "shared_input"]


def shared_input(
    parent: nn.Module, names: Sequence[str], path: str
) -> tuple[Grid | TokenGrid, dict[str, IntegerWeight]]:
    """The grid that all of these layers read on, and their weights by name.

    Raises
    ------
    NoIntegerKernelError
        Where they do not read the same codes, or one has no integer kernel.
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
    """The grid and the weight of one layer, see `shared_input`."""
    grid, weights = shared_input(parent, (name,), path)
    return grid, weights[name]
