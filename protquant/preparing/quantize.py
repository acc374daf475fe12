"""Calibrate a model on sequences, and quantize it."""

from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, TypeVar

import torch

from protquant.errors import ProtquantError
from protquant.models import ProteinModel, add_to_lineage
from protquant.preparing.statistics_cache import statistics_cache
from protquant.proteins import read_fasta
from protquant.quant import (
    Examples,
    Recipe,
    Report,
    Statistics,
    calibrate_once,
    count_activations,
    load_recipe,
    needs_sequences,
)
from protquant.quant import quantize as quantize_model
from protquant.reporting.progress import note, note_rejected
from protquant.running.execution import Execution

__all__ = [
    "calibration_sequences",
    "examples_of",
    "gather_statistics",
    "median_sequence",
    "quantize",
    "run_sequence",
]

Model = TypeVar("Model", bound=ProteinModel)


def calibration_sequences(fasta: str | Path | None = None, limit: int | None = None) -> list[str]:
    """Return the sequences of a FASTA file, by default the 12 UniProt proteins that ship with protquant.

    Raises
    ------
    ProtquantError
        If the file cannot be read or has no usable record.
    """
    if fasta is None:
        with as_file(files("protquant.proteins") / "data" / "calibration.fasta") as path:
            return calibration_sequences(path, limit)
    records = read_fasta(fasta)
    if not records.records:
        raise ProtquantError(f"{fasta}: none of its {len(records.rejected)} records can be used for calibration")
    note_rejected(records)
    return [record.sequence for record in records.records[:limit]]


def _residues(sequence: str) -> int:
    return len(sequence.replace(":", ""))


def run_sequence(model: Any, sequence: str) -> object:
    """Run a model on a sequence for calibration."""
    return model.run_sequence(sequence)


def examples_of(
    model: ProteinModel,
    sequences: Sequence[str],
    *,
    checkpoint: Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Examples:
    """Return the examples to calibrate and train on; see `quantize` for `checkpoint` and `seed`."""
    return Examples(
        tuple(sequences),
        run_sequence,
        objective=model.objective,
        length=_residues,
        checkpoint=checkpoint,
        seed=seed,
        progress=progress,
    )


def median_sequence(sequences: Sequence[str]) -> str:
    """Return a sequence of median length."""
    return sorted(sequences, key=_residues)[len(sequences) // 2]


def gather_statistics(
    model: ProteinModel, sequences: Sequence[str] | None = None, progress: bool = False, cache: bool = True
) -> dict[str, Statistics]:
    """Run a float model on sequences, one at a time, and gather statistics of its activations.

    Parameters
    ----------
    sequences : sequence of str, optional
        Sequences to calibrate on; by default `calibration_sequences()`.
    cache : bool
        Whether to use the cache of statistics (`statistics_cache`).

    Returns
    -------
    dict
        Statistics by name of site, for `quantize` with any recipe.
    """
    if sequences is None:
        sequences = calibration_sequences()
    return calibrate_once(model, sequences, run_sequence, statistics_cache() if cache else None, progress=progress)


def quantize(
    model: Model,
    recipe: str | Path | Recipe,
    sequences: Sequence[str] | None = None,
    *,
    execution: str | None = None,
    backend: str = "auto",
    statistics: dict[str, Statistics] | None = None,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    cache: bool = True,
    inplace: bool = False,
    progress: bool = False,
) -> tuple[Model, Report]:
    """Quantize a float model by a recipe.

    Sequences are run only if the recipe has frozen ranges, or steps that need activations; otherwise the report counts
    activations from shapes.

    Parameters
    ----------
    recipe : str, Path or Recipe
        A shipped name such as "w8a8-pwlq" (see `available_recipes`), a YAML file, or a recipe.
    sequences : sequence of str, optional
        Sequences to calibrate on; by default `calibration_sequences()`.
    execution : str, optional
        `simulate`: quantize and dequantize in float (only such models can be saved). `integer`: integer arithmetic, see
        `protquant.integer.to_integer`; standard error lists the parts that run on integers. By default the recipe
        decides.
    backend : str
        Backend of integer operations: `auto`, `reference`, `cpu` or `triton`.
    statistics : dict, optional
        Result of `gather_statistics` on this model, which saves a calibration.
    checkpoint : str or Path, optional
        File for the state of training. If it exists, training resumes from it, with the same result as without
        interruption.
    seed : int
        Seed of random numbers in training.
    cache : bool
        See `gather_statistics`.
    inplace : bool
        Whether to change `model` itself, which saves the memory of a copy.

    Returns
    -------
    model : ProteinModel
        The quantized model; it simulates integers in float, or runs on integers.
    report : Report
        One entry for every site.

    Examples
    --------
    >>> model, report = quantize(load("demo"), "w8a8-pwlq")  # doctest: +SKIP
    """
    recipe = load_recipe(recipe)
    running = Execution(recipe, execution, backend, next(model.parameters()).device)
    calibrates = needs_sequences(model, recipe)
    if sequences is None:
        sequences = calibration_sequences()
    if not calibrates and statistics is None:
        with torch.device("meta"):
            skeleton = type(model)(model.config)
        sequence = median_sequence(sequences or calibration_sequences())
        statistics = count_activations(skeleton.eval(), sequence, run_sequence)
    path = None if checkpoint is None else Path(checkpoint)
    examples = examples_of(model, sequences, checkpoint=path, seed=seed, progress=progress)
    quantized, report = quantize_model(
        model,
        recipe,
        statistics,
        examples=examples if calibrates else None,
        cache=statistics_cache() if cache and calibrates else None,
        inplace=inplace,
        progress=progress,
    )
    assert isinstance(quantized, type(model))
    add_to_lineage(
        quantized,
        recipe=recipe.name,
        recipe_fingerprint=recipe.fingerprint(),
        execution="float" if recipe.is_float else "simulated",
    )
    quantized = running.convert(quantized)
    if running.integer:
        note(running.summary())
    return quantized, report
