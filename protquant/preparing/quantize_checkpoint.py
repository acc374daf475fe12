"""Quantize a checkpoint and save the result; handle models that are already quantized."""

import sys
import time
from pathlib import Path
from typing import Any

from protquant.checkpoints import Scheme, check_new_folder, load, open_checkpoint, save_quantized, scheme_of
from protquant.errors import ProtquantError
from protquant.options import QuantizeOptions, takes
from protquant.preparing.quantize import calibration_sequences, quantize
from protquant.preparing.streaming import stream_checkpoint
from protquant.quant import Recipe, Report, load_recipe, needs_whole_model
from protquant.reporting.progress import note
from protquant.running.devices import pick_device
from protquant.running.execution import is_float

__all__ = ["already_quantized", "choose_recipe", "is_float", "quantize_checkpoint"]


@takes(QuantizeOptions)
def quantize_checkpoint(options: QuantizeOptions) -> tuple[Report, dict[str, Any]]:
    """Quantize a model, and save it as a folder for `load` and the option `-m`.

    Only one block of the model at a time is in memory in float (`protquant.preparing.streaming`). An interrupted run
    resumes after the last finished block. Recipes with steps that change all blocks together need the whole model in
    memory; a note on standard error says so.

    Returns
    -------
    report : Report
        One entry for every site.
    document : dict
        `model output recipe weight_bits activation_bits weight_bytes float_weight_bytes bytes_on_disk seconds`.
        `weight_bytes` is the number in the report, `bytes_on_disk` the size of all files.

    Raises
    ------
    ProtquantError
        If the model, the recipe or the folder cannot be used, or the model is already quantized.
    """
    check_new_folder(options.output, options.overwrite)
    if options.output.exists() and options.output.resolve() == Path(options.model).resolve():
        raise ProtquantError(f"{options.output}: is the float model itself, which would be lost; name another folder")
    recipe, saved = choose_recipe(options.model, options.quant)
    if saved is not None:
        raise already_quantized(options.model, saved)
    sequences = calibration_sequences(options.calibration)
    started = time.perf_counter()
    whole = needs_whole_model(recipe)
    if whole or options.state is not None:
        report = _quantize_whole(options, recipe, sequences, whole)
    else:
        report = stream_checkpoint(
            open_checkpoint(options.model),
            recipe,
            sequences,
            options.output,
            seed=options.seed,
            overwrite=options.overwrite,
            device=pick_device(options.cpu_only),
        )
    seconds = time.perf_counter() - started
    return report, {
        "model": options.model,
        "output": str(options.output),
        "recipe": recipe.to_dict(),
        "weight_bits": report.weight_bits,
        "activation_bits": report.activation_bits,
        "weight_bytes": report.weight_bytes,
        "float_weight_bytes": report.float_weight_bytes,
        "bytes_on_disk": sum(path.stat().st_size for path in options.output.iterdir()),
        "seconds": seconds,
    }


def _quantize_whole(options: QuantizeOptions, recipe: Recipe, sequences: list[str], reason: str) -> Report:
    """Quantize a model as a whole in memory, and save it."""
    network = load(options.model, device=pick_device(options.cpu_only))
    size = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    if reason:
        note(
            f"{recipe.name}: {reason}, so the whole model is in memory, in float: {size / 2**30:.1f} GiB of weights,"
            " and as much again for the training of all of them"
        )
    # In place, because the float model is not needed afterwards, and a copy would take memory.
    # Only simulated models can be saved; a loaded model can run on integers.
    network, report = quantize(
        network,
        recipe,
        sequences,
        execution="simulate",
        checkpoint=options.state,
        seed=options.seed,
        inplace=True,
        progress=sys.stderr.isatty(),
    )
    save_quantized(network, report, options.output, options.overwrite)
    return report


def choose_recipe(model: str, quant: str | Path | Recipe) -> tuple[Recipe, Scheme | None]:
    """Return the recipe for a model, and the scheme of the checkpoint if it is already quantized.

    Raises
    ------
    ProtquantError
        If the model is already quantized and `quant` is not the float recipe.
    """
    recipe, saved = load_recipe(quant), scheme_of(model)
    if saved is None:
        return recipe, None
    if not is_float(recipe):
        raise already_quantized(model, saved)
    return saved.report.recipe, saved


def already_quantized(model: str, saved: Scheme) -> ProtquantError:
    """Return the error for quantizing a model that is already quantized."""
    return ProtquantError(
        f"{model} is quantized already, by {saved.report.recipe.name}; leave the recipe out, or name the float model"
        + (f" ({saved.source})" if saved.source else "")
    )
