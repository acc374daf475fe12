"""Quantized models in a folder: `model.safetensors` with packed codes, and a `scheme.json` that vouches for both.

What is loaded computes, bit for bit, what was saved, without calibrating again. Nothing of a file is executed: modules
are put together from the names of classes that are known here, plain settings and tensors
(`protquant.quant.storable`).
"""

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from protquant.checkpoints.assemble import check_places
from protquant.checkpoints.folders import SCHEME, WEIGHTS, file_hash, new_folder
from protquant.checkpoints.scheme import Scheme, read_scheme, write_scheme
from protquant.checkpoints.settings import parts_of
from protquant.checkpoints.sizes import empty_model, sizes_of
from protquant.checkpoints.stored_modules import describe_module, rebuild_module
from protquant.checkpoints.stored_tensors import TensorReader, TensorWriter
from protquant.checkpoints.weight_files import read_safetensors
from protquant.errors import ProtquantError
from protquant.models import ESM2, ESMFold, add_to_lineage
from protquant.quant import Report
from protquant.quant.modules import QuantizedLinear
from protquant.quant.transforms import TransformedLinear

__all__ = ["is_quantized", "load_quantized", "save_quantized"]

# Of a model as a whole, and not of its sizes.
_LABELS = {"source", "fingerprint", "lineage", "config"}


def save_quantized(
    model: ESM2 | ESMFold, report: Report, folder: str | os.PathLike[str], overwrite: bool = False
) -> Path:
    """Save a quantized model; the folder appears whole or not at all.

    Parameters
    ----------
    model : ESM2 or ESMFold
        Of `quantize`; what stayed in float is saved in the type that it has.
    report : Report
        Of `quantize`.
    folder : str or PathLike
        New, or empty, unless `overwrite`.
    overwrite : bool
        Replace the checkpoint that is in the folder; never one that holds anything else.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ProtquantError
        If the folder holds something or cannot be written, or a step has put something into the model that cannot be
        saved; names it.
    """
    folder = Path(folder)
    if any(type(module).__module__.startswith("protquant.integer") for module in model.modules()):
        raise ProtquantError(
            f"{folder}: not saved, the model was made to run on integers; save what quantize(..., execution='simulate')"
            " gives, which runs on integers just as well when it is loaded"
        )
    sizes = sizes_of(model)
    writer = TensorWriter()
    with torch.device("meta"):
        plan = type(model)(model.config)  # type: ignore[arg-type]  # each has its own
    modules: dict[str, dict[str, Any]] = {}
    try:
        for path, module in _replaced(model, plan):
            modules[path] = describe_module(module, path, writer)
    except ValueError as error:
        raise ProtquantError(f"{folder}: not saved, {path}: {error}") from error
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = [name for name, _ in model.named_parameters() if name not in trained | writer.coded]
    for name, tensor in model.state_dict().items():
        if not _lies_in(name, modules):
            writer.plain(name, tensor)
    with new_folder(folder, overwrite) as temporary:
        save_file(writer.tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        origin = model.lineage.float_fingerprint or model.fingerprint
        scheme = Scheme(sizes, model.source, origin, report, modules, file_hash(temporary / WEIGHTS), frozen)
        write_scheme(scheme, temporary / SCHEME)
    return folder


def is_quantized(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a quantized checkpoint."""
    return (Path(folder) / SCHEME).is_file()


def load_quantized(folder: str | os.PathLike[str], keep_codes: bool = False) -> ESM2 | ESMFold:
    """Load what `save_quantized` wrote, on the CPU, in the number types that it had.

    Parameters
    ----------
    keep_codes : bool
        Whether linear layers have the codes of their weights in memory and not the weights, see `load`.

    Raises
    ------
    ProtquantError
        If a file is missing or differs in a single byte from what was saved, or the checkpoint needs a newer protquant.
    """
    folder = Path(folder)
    scheme = read_scheme(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ProtquantError(f"{weights}: no such file; copy the checkpoint again, whole.")
    if file_hash(weights) != scheme.weights_hash:
        raise ProtquantError(
            f"{weights}: differs from what was saved (its SHA-256 is not the one in {SCHEME}): truncated, damaged or"
            " replaced. Copy the checkpoint again, or quantize the float model again."
        )
    reader = TensorReader(read_safetensors(weights))
    try:
        with torch.device("meta"):
            model = empty_model(**scheme.sizes)
        places = {name: place for name, place in model.state_dict().items() if not _lies_in(name, scheme.modules)}
        for path, node in scheme.modules.items():
            _put(model, path, rebuild_module(node, path, reader, keep_codes))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise ProtquantError(f"{folder / SCHEME}: {error}. Install the protquant that wrote it, or a newer.") from error
    check_places(places, reader.tensors, str(weights))
    model.load_state_dict(reader.take_rest(), strict=False, assign=True)
    for name, parameter in model.named_parameters():
        if name in scheme.frozen:
            parameter.requires_grad_(False)
    model.source, model.fingerprint = str(folder), scheme.fingerprint
    recipe = scheme.report.recipe
    add_to_lineage(
        model,
        float_fingerprint=scheme.float_fingerprint,
        recipe=recipe.name,
        recipe_fingerprint=recipe.fingerprint(),
        execution="float" if recipe.is_float else "simulated",
    )
    return model.eval()


def _replaced(module: nn.Module, plan: nn.Module, path: str = "") -> list[tuple[str, nn.Module]]:
    """Path and module of all that is not as the sizes of the model say, the outermost ones."""
    if _structure(module) != _structure(plan):
        return [(path, module)]
    return [
        found
        for name, child in module.named_children()
        for found in _replaced(child, plan.get_submodule(name), f"{path}.{name}" if path else name)
    ]


def _structure(module: nn.Module) -> tuple[Any, ...]:
    """What two modules must have in common for the tensors of the one to be put into the other."""
    parts = parts_of(module)
    tensors = {
        name: None if tensor is None else tensor.shape for name, tensor in (parts.parameters | parts.buffers).items()
    }
    attributes = {name: value for name, value in parts.attributes.items() if name not in _LABELS}
    return type(module), tensors, list(parts.modules), attributes


def _lies_in(name: str, modules: dict[str, Any]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:length]) in modules for length in range(1, len(parts)))


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module into its place; refuse a layer whose ends do not fit there."""
    place = model.get_submodule(path)
    if isinstance(place, nn.Linear) and isinstance(module, nn.Linear | QuantizedLinear):
        # Transforms may change what a layer reads, and nothing what it gives.
        read = None if isinstance(module, TransformedLinear) else getattr(module, "transforms", None)
        plain = not isinstance(module, TransformedLinear) and read is None
        if module.out_features != place.out_features or (plain and module.in_features != place.in_features):
            raise ValueError(
                f"{path} is {module.in_features} -> {module.out_features} and should be {place.in_features} ->"
                f" {place.out_features}"
            )
    model.set_submodule(path, module)
