"""A float checkpoint to a quantized one, and what must be known of a model that is quantized already."""

import sys
import time
from pathlib import Path
from typing import Any

from protquant.checkpoints import Scheme, check_new_folder, load, open_checkpoint, save_quantized, scheme_of
from protquant.errors import ProtquantError
from protquant.preparing.quantize import calibration_sequences, quantize
from protquant.preparing.streaming import stream_checkpoint
from protquant.quant import Recipe, Report, load_recipe, needs_whole_model
from protquant.reporting.progress import note
from protquant.running.devices import pick_device
from protquant.running.execution import is_float

__all__ = ["already_quantized", "choose_recipe", "is_float", "quantize_checkpoint"]


def quantize_checkpoint(
    model: str,
    output: Path,
    quant: str | Path | Recipe,
    *,
    calibration: Path | None = None,
    state: Path | None = None,
    seed: int = 0,
    cpu_only: bool = False,
    overwrite: bool = False,
) -> tuple[Report, dict[str, Any]]:
    """Quantize a model, and save it as a folder that `load` and every `-m` take.

    One block of the model at a time is in memory in float, on the CPU (`protquant.preparing.streaming`). An interrupted
    run goes on from the blocks that are done. Only recipes whose steps change all blocks together have the whole model
    in memory, which standard error says.

    Parameters
    ----------
    model : str
        Float model, as for `load`.
    output : Path
        Folder to make.
    quant : str, Path or Recipe
        A shipped name, a YAML file, or a recipe.
    calibration : Path, optional
        FASTA of sequences to calibrate on; by default 12 UniProt proteins that ship with protquant.
    state : Path, optional
        File to which a recipe that trains writes how far it came, and from which it goes on.
    seed : int
        Seed of what recipes that train draw at random.
    cpu_only : bool
        Whether a recipe that needs the whole model leaves the GPU alone.
    overwrite : bool
        Replace the checkpoint that is in the folder; never one that holds anything else.

    Returns
    -------
    report : Report
        What became of every site.
    document : dict
        `model output recipe weight_bits activation_bits weight_bytes float_weight_bytes bytes_on_disk seconds`.
        `weight_bytes` is what the report promises, `bytes_on_disk` what all files take.

    Raises
    ------
    ProtquantError
        If the model, the recipe or the folder cannot be used, or the model is quantized already.
    """
    output = Path(output)
    check_new_folder(output, overwrite)
    if output.exists() and output.resolve() == Path(model).resolve():
        raise ProtquantError(f"{output}: is the float model itself, which would be lost; name another folder")
    recipe, saved = choose_recipe(model, quant)
    if saved is not None:
        raise already_quantized(model, saved)
    sequences = calibration_sequences(calibration)
    started = time.perf_counter()
    whole = needs_whole_model(recipe)
    if whole or state is not None:
        report = _quantize_whole(model, recipe, sequences, output, whole, state, seed, cpu_only, overwrite)
    else:
        device = pick_device(cpu_only)
        report = stream_checkpoint(
            open_checkpoint(model), recipe, sequences, output, seed=seed, overwrite=overwrite, device=device
        )
    seconds = time.perf_counter() - started
    return report, {
        "model": model,
        "output": str(output),
        "recipe": recipe.to_dict(),
        "weight_bits": report.weight_bits,
        "activation_bits": report.activation_bits,
        "weight_bytes": report.weight_bytes,
        "float_weight_bytes": report.float_weight_bytes,
        "bytes_on_disk": sum(path.stat().st_size for path in output.iterdir()),
        "seconds": seconds,
    }


def _quantize_whole(
    model: str,
    recipe: Recipe,
    sequences: list[str],
    output: Path,
    reason: str,
    state: Path | None,
    seed: int,
    cpu_only: bool,
    overwrite: bool,
) -> Report:
    """Quantize a model that is in memory as a whole, and save it."""
    network = load(model, device=pick_device(cpu_only))
    size = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    if reason:
        note(
            f"{recipe.name}: {reason}, so the whole model is in memory, in float: {size / 2**30:.1f} GiB of weights,"
            " and as much again for the training of all of them"
        )
    # In place: there is no second use for the float model, and no need of the memory of two.
    # What is saved is what can be simulated, and runs on integers when it is loaded.
    network, report = quantize(
        network,
        recipe,
        sequences,
        execution="simulate",
        checkpoint=state,
        seed=seed,
        inplace=True,
        progress=sys.stderr.isatty(),
    )
    save_quantized(network, report, output, overwrite)
    return report


def choose_recipe(model: str, quant: str | Path | Recipe) -> tuple[Recipe, Scheme | None]:
    """Return the recipe that a model is to be under, and the scheme of the checkpoint if it is quantized already.

    Raises
    ------
    ProtquantError
        If the model is quantized and `quant` is not the recipe that leaves everything as it is.
    """
    recipe, saved = load_recipe(quant), scheme_of(model)
    if saved is None:
        return recipe, None
    if not is_float(recipe):
        raise already_quantized(model, saved)
    return saved.report.recipe, saved


def already_quantized(model: str, saved: Scheme) -> ProtquantError:
    """What to say to who wants a quantized model to be quantized."""
    return ProtquantError(
        f"{model} is quantized already, by {saved.report.recipe.name}; leave the recipe out, or name the float model"
        + (f" ({saved.source})" if saved.source else "")
    )
