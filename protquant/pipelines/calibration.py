"""Statistics of a model's activations on sequences, and a quantized model from them."""

from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import TypeVar

from protquant.errors import ProtquantError
from protquant.models import ESM2, ESMFold, encode_complexes, tokenize
from protquant.proteins import read_fasta
from protquant.quant import Examples, Recipe, Report, Statistics, calibrate
from protquant.quant import quantize as quantize_model

__all__ = ["calibration_sequences", "gather_statistics", "quantize"]

Model = TypeVar("Model", bound=ESM2 | ESMFold)


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
    return [record.sequence for record in records.records[:limit]]


def _forward_esmfold(model: ESMFold, sequence: str) -> object:
    # One recycle: the trunk's input differs between its first pass and those on its own output.
    return model(encode_complexes([sequence]).to(model.device), num_recycles=1)


def _forward_esm2(model: ESM2, sequence: str) -> object:
    return model(tokenize([sequence.replace(":", "")], model.embedding.weight.device))


def gather_statistics(
    model: ESM2 | ESMFold, sequences: Sequence[str] | None = None, progress: bool = False
) -> dict[str, Statistics]:
    """Run a float model on sequences, one at a time, and remember what passes through its sites.

    Parameters
    ----------
    sequences : sequence of str, optional
        By default `calibration_sequences()`.

    Returns
    -------
    dict
        Statistics by name of site, for `quantize`; they serve every recipe.
    """
    if sequences is None:
        sequences = calibration_sequences()
    if isinstance(model, ESMFold):
        return calibrate(model, sequences, _forward_esmfold, progress=progress)
    return calibrate(model, sequences, _forward_esm2, progress=progress)


def quantize(
    model: Model,
    recipe: str | Path | Recipe,
    sequences: Sequence[str] | None = None,
    *,
    statistics: dict[str, Statistics] | None = None,
    inplace: bool = False,
    progress: bool = False,
) -> tuple[Model, Report]:
    """Quantize a float model by a recipe; calibrate first if the recipe needs it.

    Parameters
    ----------
    recipe : str, Path or Recipe
        A shipped name such as "w8a8-pwlq" (see `available_recipes`), a YAML file, or a recipe.
    sequences : sequence of str, optional
        To calibrate on; by default `calibration_sequences()`.
    statistics : dict, optional
        Of `gather_statistics` on this model, to spare another calibration.
    inplace : bool
        Whether to change `model` itself and not a copy, which spares the memory of one.

    Returns
    -------
    model : ESM2 or ESMFold
        Computes in float what integers would give (quantize-dequantize).
    report : Report
        What became of every site.

    Examples
    --------
    >>> model, report = quantize(load("demo"), "w8a8-pwlq")  # doctest: +SKIP
    """
    if sequences is None:
        sequences = calibration_sequences()
    forward = _forward_esmfold if isinstance(model, ESMFold) else _forward_esm2
    examples = Examples(tuple(sequences), forward)
    quantized, report = quantize_model(model, recipe, statistics, examples=examples, inplace=inplace, progress=progress)
    assert isinstance(quantized, type(model))
    return quantized, report
