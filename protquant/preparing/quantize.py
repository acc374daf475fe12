"""Statistics of a model's activations on sequences, and a quantized model from them."""

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
    """Sequences of a FASTA file, by default the 12 UniProt proteins that ship with protquant.

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
    """Return what recipes calibrate and train on; `checkpoint` and `seed` are those of `quantize`."""
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
    """Run a float model on sequences, one at a time, and remember what passes through its sites.

    Parameters
    ----------
    sequences : sequence of str, optional
        By default `calibration_sequences()`.
    cache : bool
        Whether to take statistics that were gathered before, and to keep those that were not (`statistics_cache`).

    Returns
    -------
    dict
        Statistics by name of site, for `quantize`; they serve every recipe.
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

    Sequences are run only where the recipe has ranges to freeze or steps that look at activations; else the report
    counts activations from shapes.

    Parameters
    ----------
    recipe : str, Path or Recipe
        A shipped name such as "w8a8-pwlq" (see `available_recipes`), a YAML file, or a recipe.
    sequences : sequence of str, optional
        To calibrate on; by default `calibration_sequences()`.
    execution : str, optional
        What the model runs as: `simulate`, quantized and dequantized in float, as it has to be saved; or `integer`, see
        `protquant.integer.to_integer`, where standard error tells what runs and what does not. By default what the
        recipe says.
    backend : str
        Whose kernels multiply integers: `auto`, `reference`, `cpu` or `triton`.
    statistics : dict, optional
        Of `gather_statistics` on this model, to spare another calibration.
    checkpoint : str or Path, optional
        File to which a recipe that trains writes how far it came; where it is there, training goes on from it, and
        ends as if it had not been stopped.
    seed : int
        Of what recipes that train draw at random.
    cache : bool
        As for `gather_statistics`.
    inplace : bool
        Whether to change `model` itself and not a copy, which spares the memory of one.

    Returns
    -------
    model : ProteinModel
        Computes in float what integers would give (quantize-dequantize), or on integers.
    report : Report
        What became of every site.

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
