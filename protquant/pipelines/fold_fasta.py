"""A FASTA file to a folder of structures: batches, memory, failures, resuming."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from protquant.checkpoints import load
from protquant.errors import ProtquantError
from protquant.models import ESMFold
from protquant.pipelines.batches import length_batches, model_length
from protquant.pipelines.calibration import calibration_sequences, quantize
from protquant.pipelines.devices import parse_dtype, pick_device
from protquant.pipelines.folding import fold_batch
from protquant.pipelines.memory import plan_memory
from protquant.pipelines.plots import plot_prediction
from protquant.proteins import (
    Fasta,
    Manifest,
    Prediction,
    Record,
    fingerprint,
    prepare_folder,
    read_fasta,
    write_mmcif,
    write_pae,
    write_pdb,
    write_table,
)
from protquant.quant import load_recipe

__all__ = ["FoldRun", "fold_fasta"]

TABLE = "predictions.csv"
_MAX_PDB_CHAINS, _MAX_PDB_ATOMS = 62, 99_999


@dataclass
class FoldRun:
    """What became of the records of a FASTA file.

    Attributes
    ----------
    output : Path
    rows : list of dict
        One per target that is done, of this run or an earlier one; also in `predictions.csv`.
    skipped : list of str
        Targets that were done before, with the same settings.
    failures : list of dict
        `name`, `header`, `line`, `error` of every record that was not folded.
    settings : dict
        Model, recipe and so on, as they went into the fingerprint.
    """

    output: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The run as one JSON document."""
        return {
            "output": str(self.output),
            "settings": self.settings,
            "predictions": self.rows,
            "skipped": self.skipped,
            "failures": self.failures,
        }


def fold_fasta(
    fasta: Path,
    output: Path,
    model: str = "demo",
    quant: str = "fp32",
    *,
    num_recycles: int | None = None,
    max_tokens_per_batch: int = 1024,
    chunk_size: int | None = None,
    cpu_only: bool = False,
    dtype: str = "float32",
    calibration: Path | None = None,
    plots: bool = True,
    overwrite: bool = False,
) -> FoldRun:
    """Fold every record of a FASTA file.

    For each target `<name>.pdb`, `<name>.cif` (pLDDT, 0-100, in the B-factor column), `<name>_pae.json` (as the
    AlphaFold database has it) and `<name>.png` are written, and a row of `predictions.csv`. A run that is repeated
    skips the targets that are done with the same settings. Notes go to standard error.

    Parameters
    ----------
    fasta : Path
        FASTA, plain or gzipped, or CSV with columns id and sequence; chains of a complex are joined by ':'.
    output : Path
        Folder, made if need be.
    model : str
        "demo", a released name such as "esmfold_v1", a folder, a file, or a name on the hub.
    quant : str
        Recipe: a shipped name or a YAML file. "fp32" quantizes nothing.
    num_recycles : int, optional
        By default what the model was trained for.
    max_tokens_per_batch : int
        Residues of short sequences that go through the model together; 0 folds one at a time.
    chunk_size : int, optional
        Rows of triangle attention at a time; by default the largest that fits in memory.
    cpu_only : bool
        Do not use a GPU.
    dtype : str
        "float32", "bfloat16" or "float16": what the model computes in.
    calibration : Path, optional
        FASTA of sequences to calibrate on; by default 24 UniProt proteins that ship with protquant.
    plots : bool
        Whether to draw pLDDT and PAE.
    overwrite : bool
        Fold again what is done.

    Raises
    ------
    ProtquantError
        If the input, the model, the recipe or the folder cannot be used at all. A record that cannot be folded is
        no such error: it is among the failures.
    """
    records = read_fasta(fasta)
    if num_recycles is not None and num_recycles < 0:
        raise ProtquantError(f"the number of recycles must not be negative, got {num_recycles}")
    if chunk_size is not None and chunk_size < 1:
        raise ProtquantError(f"the chunk size must be at least 1, got {chunk_size}")
    prepare_folder(output)
    recipe = load_recipe(quant)
    run = FoldRun(output, failures=[_rejected(record) for record in records.rejected])
    for failure in run.failures:
        _note(f"{records.path}, line {failure['line']}: {failure['header']!r}: {failure['error']}")
    for record in records.records:
        for note in record.substitutions:
            _note(f"{records.path}, line {record.line}: {record.header!r}: {note}")
    manifest = Manifest.load(output)

    network = _load(model, dtype, cpu_only)
    run.settings = {
        "model": model,
        "model_fingerprint": network.fingerprint,
        "recipe": recipe.to_dict(),
        "num_recycles": network.config.trunk.max_recycles - 1 if num_recycles is None else num_recycles,
        "dtype": dtype,
        "calibration": None if calibration is None else calibration_sequences(calibration),
    }
    prints = {record.name: fingerprint({**run.settings, "sequence": record.sequence}) for record in records.records}
    pending = []
    for record in records.records:
        if not overwrite and manifest.is_done(record.name, prints[record.name]):
            run.skipped.append(record.name)
        else:
            pending.append(record)
    if run.skipped:
        _note(f"{len(run.skipped)} of {len(records.records)} targets are done already with these settings")
    if pending:
        network, report = quantize(network, recipe, run.settings["calibration"], progress=sys.stderr.isatty())
        _note(str(report))
        with tqdm(total=len(pending), desc="fold", unit="protein", disable=not sys.stderr.isatty()) as bar:
            for record, outcome in _fold_all(network, pending, num_recycles, max_tokens_per_batch, chunk_size):
                if isinstance(outcome, Prediction):
                    try:
                        files, row = _write(outcome, output, plots), _row(record, outcome, model, recipe.name, dtype)
                        manifest.record(record.name, record.header, prints[record.name], files, row)
                    except ProtquantError as error:
                        outcome = str(error)
                if isinstance(outcome, str):
                    _note(f"{record.name}: {outcome}")
                    run.failures.append(
                        {"name": record.name, "header": record.header, "line": record.line, "error": outcome}
                    )
                    manifest.record_failure(record.name, record.header, prints[record.name], outcome)
                bar.update()
    run.rows = [
        dict(manifest.entries[record.name].row)
        for record in records.records
        if manifest.is_done(record.name, prints[record.name])
    ]
    _finish(run, records)
    return run


def _load(model: str, dtype: str, cpu_only: bool) -> ESMFold:
    network = load(model, dtype=parse_dtype(dtype), device=pick_device(cpu_only))
    if not isinstance(network, ESMFold):
        raise ProtquantError(f"{model} is a language model and cannot fold; see `protquant contacts`")
    return network


def _fold_all(
    model: ESMFold, records: list[Record], num_recycles: int | None, max_tokens: int, chunk_size: int | None
) -> Iterator[tuple[Record, Prediction | str]]:
    """Every record with its prediction, or with the reason why there is none."""
    for indices in length_batches([record.sequence for record in records], max_tokens):
        batch = [records[i] for i in indices]
        try:
            predictions = _fold_within_memory(model, batch, num_recycles, chunk_size)
        except ProtquantError as error:
            if len(batch) == 1:
                yield batch[0], str(error)
            else:  # one bad apple must not take the others along
                for record in batch:
                    yield from _fold_all(model, [record], num_recycles, 0, chunk_size)
            continue
        yield from zip(batch, predictions, strict=True)


def _fold_within_memory(
    model: ESMFold, batch: list[Record], num_recycles: int | None, chunk_size: int | None
) -> list[Prediction]:
    plan = plan_memory(model, max(model_length(record.sequence) for record in batch), len(batch), chunk_size)
    while True:
        try:
            return fold_batch(
                model,
                [record.sequence for record in batch],
                [record.name for record in batch],
                [record.header for record in batch],
                num_recycles=num_recycles,
                chunk_size=plan.chunk_size,
            )
        except torch.OutOfMemoryError as error:
            rows = plan.chunk_size or plan.length
            if rows == 1 or chunk_size is not None:
                raise ProtquantError(f"out of memory at {plan}; leave --chunk-size out, or use a larger machine") from error
            _note(f"out of memory at {plan}; trying chunks of {rows // 2}")
            plan = plan_memory(model, plan.length, plan.batch, rows // 2)


def _write(prediction: Prediction, output: Path, plots: bool) -> list[Path]:
    stem = output / prediction.name
    files = [write_mmcif(prediction, stem.with_name(f"{stem.name}.cif"))]
    chains, atoms = len(prediction.chains), len(prediction.atoms)
    if chains <= _MAX_PDB_CHAINS and atoms <= _MAX_PDB_ATOMS and max(map(len, prediction.chains)) <= 9999:
        files.append(write_pdb(prediction.atoms, stem.with_name(f"{stem.name}.pdb")))
    else:
        _note(f"{prediction.name}: {chains} chains and {atoms} atoms do not fit the PDB format; see the .cif")
    files.append(write_pae(prediction, stem.with_name(f"{stem.name}_pae.json")))
    if plots:
        files.append(plot_prediction(prediction, stem.with_name(f"{stem.name}.png")))
    return files


def _row(record: Record, prediction: Prediction, model: str, recipe: str, dtype: str) -> dict[str, Any]:
    return {
        **prediction.row(),
        "model": model,
        "recipe": recipe,
        "execution": "simulated" if recipe != "fp32" else "float",
        "dtype": dtype,
        "substitutions": "; ".join(record.substitutions),
    }


def _rejected(record: Any) -> dict[str, Any]:
    return {"name": None, "header": record.header, "line": record.line, "error": f"{record.reason}; {record.remedy}"}


def _finish(run: FoldRun, records: Fasta) -> None:
    if run.rows:
        write_table(run.rows, run.output / TABLE)
    failures = run.output / "failures.csv"
    if run.failures:
        write_table(run.failures, failures)
        _note(f"{len(run.failures)} of {len(records.records) + len(records.rejected)} records failed: see {failures}")
    else:
        failures.unlink(missing_ok=True)


def _note(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
