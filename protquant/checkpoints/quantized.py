"""Quantized models in a folder: files of tensors with packed codes, and a `scheme.json` with their hashes.

There is one safetensors file for each block of the model, named by its path, and `model.safetensors` for the layers
outside of blocks (`protquant.checkpoints.stored_units`). A loaded model computes the same results as the saved one, bit
for bit, without a new calibration. No code of a file is executed: modules are rebuilt from names of registered classes,
plain settings and tensors (`protquant.quant.storable`).
"""

import os
from pathlib import Path

import torch
from torch import nn

from protquant.checkpoints.assemble import check_places
from protquant.checkpoints.folders import SCHEME, file_hashes, new_folder
from protquant.checkpoints.scheme import Scheme, read_scheme, write_scheme
from protquant.checkpoints.sizes import read_sizes, sizes_of
from protquant.checkpoints.stored_modules import rebuild_module
from protquant.checkpoints.stored_tensors import TensorReader
from protquant.checkpoints.stored_units import describe_unit, lies_in, unit_names, write_unit
from protquant.checkpoints.weight_files import read_safetensors
from protquant.errors import ProtquantError
from protquant.models import ProteinModel, add_to_lineage
from protquant.models.registry import empty_model
from protquant.quant import Report
from protquant.quant.modules import QuantizedLinear
from protquant.quant.transforms import TransformedLinear

__all__ = ["is_quantized", "load_quantized", "save_quantized"]


def save_quantized(
    model: ProteinModel, report: Report, folder: str | os.PathLike[str], overwrite: bool = False
) -> Path:
    """Save a quantized model; the folder is written atomically.

    Parameters
    ----------
    model : ProteinModel
        Model from `quantize`. Float parameters are saved in their type.
    report : Report
        Report from `quantize`.
    folder : str or PathLike
        Folder to write, new or empty unless `overwrite`.
    overwrite : bool
        Replace the checkpoint in the folder. A folder with other files is never replaced.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ProtquantError
        If the folder is not empty or cannot be written, or a step has added a module that cannot be saved; the message
        names it.
    """
    folder = Path(folder)
    if any(type(module).__module__.startswith("protquant.integer") for module in model.modules()):
        raise ProtquantError(
            f"{folder}: not saved, the model was made to run on integers; save what quantize(..., execution='simulate')"
            " gives, which runs on integers just as well when it is loaded"
        )
    with torch.device("meta"):
        plan = type(model)(model.config)
    units = [None, *unit_names(plan)]
    try:
        descriptions = [describe_unit(model, plan, unit) for unit in units]
    except ValueError as error:
        raise ProtquantError(f"{folder}: not saved, {error}") from error
    with new_folder(folder, overwrite) as temporary:
        paths = [write_unit(description, temporary) for description in descriptions]
        scheme = Scheme(
            sizes_of(model),
            model.source,
            model.lineage.float_fingerprint or model.fingerprint,
            report,
            {path: node for unit in descriptions for path, node in unit.modules.items()},
            dict(zip((path.name for path in paths), file_hashes(paths), strict=True)),
            [name for unit in descriptions for name in unit.frozen],
        )
        write_scheme(scheme, temporary / SCHEME)
    return folder


def is_quantized(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder contains a quantized checkpoint."""
    return (Path(folder) / SCHEME).is_file()


def load_quantized(folder: str | os.PathLike[str]) -> ProteinModel:
    """Load a model of `save_quantized` on the CPU, in its number types; codes stay mapped.

    Raises
    ------
    ProtquantError
        If a file is missing or was changed after it was saved, or the checkpoint needs a newer protquant.
    """
    folder = Path(folder)
    scheme = read_scheme(folder)
    paths = [folder / Path(name).name for name in scheme.weights]
    for path in paths:
        if not path.is_file():
            raise ProtquantError(f"{path}: no such file; copy the checkpoint again, whole.")
    for path, digest in zip(paths, file_hashes(paths), strict=True):
        if digest != scheme.weights[path.name]:
            raise ProtquantError(
                f"{path}: differs from what was saved (its SHA-256 is not the one in {SCHEME}): truncated, damaged or"
                " replaced. Copy the checkpoint again, or quantize the float model again."
            )
    reader = TensorReader({name: tensor for path in paths for name, tensor in read_safetensors(path).items()})
    try:
        with torch.device("meta"):
            model = empty_model(read_sizes(**scheme.sizes))
        places = {name: tensor for name, tensor in model.state_dict().items() if not lies_in(name, scheme.modules)}
        for place, node in scheme.modules.items():
            _put(model, place, rebuild_module(node, place, reader))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise ProtquantError(f"{folder / SCHEME}: {error}. Install the protquant that wrote it, or a newer.") from error
    check_places(places, reader.tensors, str(folder))
    model.load_state_dict(reader.take_rest(), strict=False, assign=True)
    frozen = set(scheme.frozen)
    for name, parameter in model.named_parameters():
        if name in frozen:
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


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module into its place; refuse a layer whose input or output size does not fit."""
    place = model.get_submodule(path)
    if isinstance(place, nn.Linear) and isinstance(module, nn.Linear | QuantizedLinear):
        # Transforms may change the input size of a layer, but not its output size.
        read = None if isinstance(module, TransformedLinear) else getattr(module, "transforms", None)
        plain = not isinstance(module, TransformedLinear) and read is None
        if module.out_features != place.out_features or (plain and module.in_features != place.in_features):
            raise ValueError(
                f"{path} is {module.in_features} -> {module.out_features} and should be {place.in_features} ->"
                f" {place.out_features}"
            )
    model.set_submodule(path, module)
