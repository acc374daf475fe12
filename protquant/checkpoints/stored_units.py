"""Units of a quantized checkpoint, with one file of tensors each: a block, or all layers outside of blocks.

Each unit is written separately, so that a checkpoint can be made one block at a time; the bytes are the same as when
the whole model is saved at once.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from protquant.checkpoints.folders import WEIGHTS
from protquant.checkpoints.settings import parts_of
from protquant.checkpoints.stored_modules import describe_module
from protquant.checkpoints.stored_tensors import TensorWriter
from protquant.topology import find_chains

__all__ = ["StoredUnit", "describe_unit", "lies_in", "unit_names", "write_unit"]

# Attributes of a whole model that do not depend on its sizes.
_LABELS = {"source", "fingerprint", "lineage", "config"}


@dataclass(frozen=True)
class StoredUnit:
    """Content of a unit in a checkpoint.

    Attributes
    ----------
    path : str or None
        Path of the block; None for the layers outside of blocks.
    tensors : dict
        Tensors of the file, by name.
    modules : dict
        Descriptions of the modules that quantization has put into the model, by path (`stored_modules`).
    frozen : list of str
        Names of parameters that are not trained.
    """

    path: str | None
    tensors: dict[str, Tensor]
    modules: dict[str, dict[str, Any]]
    frozen: list[str]


def unit_names(plan: nn.Module) -> list[str]:
    """Return the paths of the blocks of a model."""
    return [block for chain in find_chains(plan) for block in chain]


def describe_unit(model: nn.Module, plan: nn.Module, unit: str | None) -> StoredUnit:
    """Return the content of a unit of a quantized model.

    Parameters
    ----------
    model : nn.Module
        The quantized model; only the unit itself needs weights.
    plan : nn.Module
        The float model of the same sizes, on the meta device.
    unit : str or None
        Path of the block; None for the layers outside of blocks.

    Raises
    ------
    ValueError
        If a module cannot be saved; the message names the module.
    """
    blocks = unit_names(plan)
    root, prefix = (model, "") if unit is None else (model.get_submodule(unit), f"{unit}.")
    outside = frozenset(blocks) if unit is None else frozenset[str]()
    writer = TensorWriter()
    modules: dict[str, dict[str, Any]] = {}
    for path, module in _replaced(root, plan if unit is None else plan.get_submodule(unit), unit or "", outside):
        try:
            modules[path] = describe_module(module, path, writer)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    names = [name for name, _ in root.named_parameters()]
    inside = [name for name in names if not lies_in(f"{prefix}{name}", outside)]
    frozen = [f"{prefix}{name}" for name in inside if not root.get_parameter(name).requires_grad]
    for name, tensor in root.state_dict(prefix=prefix).items():
        if not lies_in(name, modules) and not lies_in(name, outside):
            writer.plain(name, tensor)
    return StoredUnit(unit, writer.tensors, modules, frozen)


def write_unit(stored: StoredUnit, folder: Path) -> Path:
    """Write the file of a unit into `folder`, and return its path."""
    path = folder / (WEIGHTS if stored.path is None else f"{stored.path}.safetensors")
    save_file({name: tensor.cpu() for name, tensor in stored.tensors.items()}, path, metadata={"format": "pt"})
    return path


def lies_in(name: str, paths: Collection[str]) -> bool:
    """Return whether `name` is a path inside of one of the modules at `paths`."""
    parts = name.split(".")
    return any(".".join(parts[:length]) in paths for length in range(1, len(parts)))


def _replaced(
    module: nn.Module, plan: nn.Module, path: str, outside: frozenset[str]
) -> Iterator[tuple[str, nn.Module]]:
    """Yield path and module of the outermost modules that differ from the float model, without those in `outside`."""
    if _structure(module) != _structure(plan):
        yield path, module
        return
    for name, child in module.named_children():
        below = f"{path}.{name}" if path else name
        if below not in outside:
            yield from _replaced(child, plan.get_submodule(name), below, outside)


def _structure(module: nn.Module) -> tuple[Any, ...]:
    """Return the structure of a module; modules of equal structure can exchange tensors."""
    parts = parts_of(module)
    tensors = {
        name: None if tensor is None else tensor.shape for name, tensor in (parts.parameters | parts.buffers).items()
    }
    attributes = {name: value for name, value in parts.attributes.items() if name not in _LABELS}
    return type(module), tensors, list(parts.modules), attributes
