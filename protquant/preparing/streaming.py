"""Quantize a float checkpoint one block at a time, in the memory of a few blocks, resumably."""

import json
from importlib.metadata import version
from pathlib import Path

import torch

from protquant.checkpoints import FloatCheckpoint
from protquant.checkpoints.partial import PartialCheckpoint
from protquant.checkpoints.sizes import sizes_of
from protquant.errors import ProtquantError
from protquant.files import atomic_write, fingerprint, prepare_folder
from protquant.files.cache_folder import cache_folder
from protquant.files.plain_data import parse_json
from protquant.preparing.quantize import examples_of, median_sequence, run_sequence
from protquant.quant import Recipe, Report, count_activations, needs_sequences, quantize_stream
from protquant.reporting.progress import Progress, note

__all__ = ["fingerprint_of", "made_on", "stream_checkpoint"]


def stream_checkpoint(
    checkpoint: FloatCheckpoint,
    recipe: Recipe,
    sequences: list[str],
    output: Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    device: torch.device | None = None,
) -> Report:
    """Quantize a float checkpoint one block at a time, and write the quantized checkpoint.

    An interrupted run leaves a folder `OUTPUT.partial`; the same call resumes from it, and writes the same bytes.
    Progress goes to standard error.

    Parameters
    ----------
    sequences : list of str
        Sequences to calibrate on. They are run only if the recipe needs them; otherwise the report counts from shapes.
    output : Path
        Folder to write.
    seed : int
        Seed of random numbers in steps.
    overwrite : bool
        Replace the checkpoint in the folder.
    device : torch.device, optional
        Device that runs and quantizes the blocks; by default the CPU. On another kind of device sums of floats differ
        slightly, and a few codes by one step, so a run can resume only on the same kind.

    Raises
    ------
    ProtquantError
        If the recipe, the checkpoint or the folder cannot be used.
    """
    device = device or torch.device("cpu")
    skeleton = checkpoint.skeleton()
    calibrates = needs_sequences(skeleton, recipe)
    job = {
        "model": fingerprint_of(checkpoint),
        "recipe": recipe.to_dict(),
        "sequences": fingerprint({"sequences": sequences}) if calibrates else None,
        "seed": seed,
        "versions": {"protquant": version("protquant"), "torch": torch.__version__},
        **made_on(device),
    }
    checkpoint.device = device
    partial = PartialCheckpoint(output, job, recipe, checkpoint.skeleton(), sizes_of(skeleton), overwrite, device)
    if partial.resumed:
        note(f"{partial.folder}: {partial.resumed} of {len(partial.units)} blocks are done; going on from there")
    counted = None
    if not calibrates:
        counted = count_activations(checkpoint.skeleton(), median_sequence(sequences), run_sequence)
    report = quantize_stream(
        skeleton,
        recipe,
        examples_of(skeleton, sequences, seed=seed) if calibrates else None,
        checkpoint,
        partial,
        partial.calls,
        Progress(f"quantize {recipe.name} on {device.type}"),
        counted,
    )
    partial.finish(report, checkpoint.source, checkpoint.fingerprint())
    return report


def made_on(device: torch.device) -> dict[str, str]:
    """Return the entry for the device in a checkpoint's fingerprint; it is empty for the CPU."""
    return {} if device.type == "cpu" else {"device": device.type}


def fingerprint_of(checkpoint: FloatCheckpoint) -> str:
    """Return the fingerprint of a checkpoint's weights, and cache it while its files do not change.

    Computing it reads every weight, which takes half a minute for ESMFold. Files with the same names, sizes and
    modification times count as unchanged.
    """
    folder = cache_folder()
    facts = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in checkpoint.files]
    if checkpoint.knows_fingerprint or folder is None or not facts:
        return checkpoint.fingerprint()
    known = folder / "fingerprints" / f"{fingerprint({'files': facts})}.json"
    try:
        value = str(parse_json(known.read_bytes())["fingerprint"])
        checkpoint.know_fingerprint(value)
    except (OSError, ValueError, KeyError, TypeError):
        note(f"{checkpoint.source}: reading all weights once, to tell this model from others")
        value = checkpoint.fingerprint()
        try:
            prepare_folder(known.parent)
            atomic_write(known, json.dumps({"fingerprint": value, "files": facts}))
        except ProtquantError as error:
            note(f"the fingerprint is not kept for the next run: {error}")
    return value
