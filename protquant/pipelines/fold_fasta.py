"""A FASTA file to a folder of structures: batches, memory, failures, resuming."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from protquant.checkpoints import load
from protquant.demo.memorized import refuse_unknown
from protquant.errors import ProtquantError
from protquant.models import ESMFold
from protquant.pipelines.batches import length_batches
from protquant.pipelines.calibration import calibration_sequences, quantize
from protquant.pipelines.devices import parse_dtype, pick_device
from protquant.pipelines.execution import Execution
from protquant.pipelines.folding import check_folding_options, fold_within_memory
from protquant.pipelines.plots import plot_prediction
from protquant.pipelines.quantize_model import choose_recipe
from protquant.proteins import (
    Fasta,
    Manifest,
    PDBLimitError,
    Prediction,
    Record,
    Rejected,
    fingerprint,
    prepare_folder,
    read_fasta,
    write_mmcif,
    write_pae,
    write_pdb,
    write_table,
)
from protquant.quant import needs_sequences

__all__ = ["FoldRun", "fold_fasta"]

TABLE, FAILURES = "predictions.csv", "failures.csv"
# Raised when the files of a target say more than they did: targets that were done before are then folded again.
_LAYOUT = 2


@dataclass
class FoldRun:
    """What became of the records of a FASTA file.

    Attributes
    ----------
    output : Path
    rows : list of dict
        One per record of the file that is done, in this run or an earlier one.
    skipped : list of str
        Targets that were done before, with the same settings.
    failures : list of dict
        `name`, `header`, `line`, `error` of every record that was not folded.
    settings : dict
        What the predictions depend on: model, recipe and so on. A target done with others is folded again.
    execution : dict
        What the model ran as, and every part of it; empty where nothing was left to be folded.
    """

    output: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    execution: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The run as one JSON document."""
        return {
            "output": str(self.output),
            "settings": self.settings,
            "execution": self.execution,
            "predictions": self.rows,
            "skipped": self.skipped,
            "failures": self.failures,
        }


def fold_fasta(
    fasta: Path,
    output: Path,
    model: str = "esmfold_v1",
    quant: str = "fp32",
    *,
    execution: str | None = None,
    backend: str = "auto",
    num_recycles: int | None = None,
    max_tokens_per_batch: int = 1024,
    chunk_size: int | None = None,
    cpu_only: bool = False,
    dtype: str = "float32",
    calibration: Path | None = None,
    plots: bool = True,
    overwrite: bool = False,
    even_so: bool = False,
) -> FoldRun:
    """Fold every record of a FASTA file.

    For each target `<name>.pdb`, `<name>.cif` (pLDDT, 0-100, in the B-factor column), `<name>_pae.json` (as the
    AlphaFold database has it) and `<name>.png` are written, and a row of `predictions.csv`, which lists all targets of
    the folder. A run that is repeated skips the targets that are done with the same settings. Notes go to standard
    error; a warning about a prediction goes there, to its row, its picture and both structure files.

    Parameters
    ----------
    fasta : Path
        FASTA, plain or gzipped, or CSV with columns id and sequence; chains of a complex are joined by ':'.
    output : Path
        Folder, made if need be.
    model : str
        "demo", a released name such as "esmfold_v1", a folder, a file, or a name on the hub.
    quant : str
        Recipe: a shipped name or a YAML file. "fp32" quantizes nothing, and is the one for a quantized checkpoint.
    execution : str, optional
        "simulate", quantized and dequantized in float, or "integer", on codes where there are kernels for them; by
        default what the recipe says. What runs is told on standard error and in the table.
    backend : str
        Whose kernels multiply integers: "auto", "reference", "cpu" or "triton".
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
        FASTA of sequences to calibrate on; by default 12 UniProt proteins that ship with protquant.
    plots : bool
        Whether to draw pLDDT and PAE.
    overwrite : bool
        Fold again what is done.
    even_so : bool
        Whether the demo model, quantized or not, folds sequences that it has not memorized, with a warning that the
        result means nothing; otherwise these records are among the failures.

    Raises
    ------
    ProtquantError
        If the input, the model, the recipe or the folder cannot be used at all. A record that cannot be folded is
        no such error: it is among the failures.
    """
    check_folding_options(num_recycles, chunk_size)
    parse_dtype(dtype)
    recipe, saved = choose_recipe(model, quant)
    running = Execution(recipe, execution, backend, pick_device(cpu_only))
    sequences = calibration_sequences(calibration)
    records = read_fasta(fasta)
    prepare_folder(output)
    run = FoldRun(output, failures=[_rejected(record) for record in records.rejected])
    for failure in run.failures:
        _note(f"{records.path}, line {failure['line']}: {failure['header']!r}: {failure['error']}")
    for record in records.records:
        for note in record.substitutions:
            _note(f"{records.path}, line {record.line}: {record.header!r}: {note}")
    manifest = Manifest.load(output)

    network = _load(model, dtype, cpu_only, keep_codes=running.integer)
    # A checkpoint that is quantized brings its ranges along.
    calibrates = saved is None and needs_sequences(network, recipe)
    run.settings = {
        "model": model,
        "model_fingerprint": network.fingerprint,
        "recipe": {key: value for key, value in recipe.to_dict().items() if key != "execution"},
        **running.settings(),
        "num_recycles": network.config.trunk.max_recycles - 1 if num_recycles is None else num_recycles,
        "dtype": dtype,
        "calibration": fingerprint({"sequences": sequences}) if calibrates else None,
    }
    # By its weights: the model may be called by several names. Simulations have one kind of kernel.
    told = {"model"} if running.integer else {"model", "execution", "kernels"}
    decisive = {name: value for name, value in run.settings.items() if name not in told} | {"layout": _LAYOUT}
    prints = {
        record.name: fingerprint({**decisive, "header": record.header, "sequence": record.sequence})
        for record in records.records
    }
    known = {} if overwrite else manifest.entries
    pending = []
    for record in records.records if even_so else _answerable(network, records, run):
        drawn = not plots or (record.name in known and f"{record.name}.png" in known[record.name].files)
        if record.name in known and drawn and manifest.is_done(record.name, prints[record.name]):
            run.skipped.append(record.name)
        else:
            pending.append(record)
    if run.skipped:
        _note(f"{len(run.skipped)} of {len(records.records)} targets are done already with these settings")
        _note_warnings(known[name].row for name in run.skipped)
    if pending:
        report = saved.report if saved else None
        if report is None:
            network, report = quantize(
                network,
                recipe,
                sequences if calibrates else [],
                execution="simulate",
                progress=sys.stderr.isatty(),
            )
        _note(str(report))
        network = running.convert(network)
        if running.integer:
            _note(running.summary())
        with tqdm(total=len(pending), desc="fold", unit="protein", disable=not sys.stderr.isatty()) as bar:
            for record, outcome in _fold_all(network, pending, num_recycles, max_tokens_per_batch, chunk_size):
                error = outcome if isinstance(outcome, str) else None
                if isinstance(outcome, Prediction):
                    try:
                        files = _write(outcome, output, plots)
                        row = _row(record, outcome, model, recipe.name, running, dtype)
                        manifest.record(record.name, record.header, prints[record.name], files, row)
                        _note_warnings([row])
                    except ProtquantError as problem:
                        error = str(problem)
                if error is not None:
                    _note(f"{records.path}, line {record.line}: {record.header!r}: {error}")
                    run.failures.append(
                        {"name": record.name, "header": record.header, "line": record.line, "error": error}
                    )
                    manifest.record_failure(record.name, record.header, prints[record.name], error)
                bar.update()
        run.execution = running.to_dict()
    entries, failed = manifest.entries, {failure["name"] for failure in run.failures}
    run.rows = [dict(entries[record.name].row) for record in records.records if record.name not in failed]
    _finish(run, records, manifest)
    return run


def _load(model: str, dtype: str, cpu_only: bool, keep_codes: bool) -> ESMFold:
    network = load(model, dtype=parse_dtype(dtype), device=pick_device(cpu_only), keep_codes=keep_codes)
    if not isinstance(network, ESMFold):
        raise ProtquantError(f"{model} is a language model and cannot fold; see `protquant contacts`")
    return network


def _fold_all(
    model: ESMFold, records: list[Record], num_recycles: int | None, max_tokens: int, chunk_size: int | None
) -> Iterator[tuple[Record, Prediction | str]]:
    """Every record with its prediction, or with the reason why there is none."""
    for indices in length_batches([record.sequence for record in records], max_tokens):
        batch = [records[i] for i in indices]
        outcomes: list[Prediction] | list[str]
        try:
            outcomes = fold_within_memory(
                model,
                [record.sequence for record in batch],
                [record.name for record in batch],
                [record.header for record in batch],
                num_recycles=num_recycles,
                chunk_size=chunk_size,
            )
        except ProtquantError as error:
            outcomes = [str(error)]
        # After the except clause, where the error would keep the tensors of the failed attempt alive.
        if len(outcomes) == len(batch):
            yield from zip(batch, outcomes, strict=True)
        else:  # what is wrong with one must not take the others along
            for record in batch:
                yield from _fold_all(model, [record], num_recycles, 0, chunk_size)


def _write(prediction: Prediction, output: Path, plots: bool) -> list[Path]:
    stem = output / prediction.name
    files = [write_mmcif(prediction, stem.with_name(f"{stem.name}.cif"))]
    try:
        files.append(write_pdb(prediction.atoms, stem.with_name(f"{stem.name}.pdb"), prediction.remarks()))
    except PDBLimitError as error:
        _note(f"{prediction.name}: only the .cif is written: {error}")
    files.append(write_pae(prediction, stem.with_name(f"{stem.name}_pae.json")))
    if plots:
        files.append(plot_prediction(prediction, stem.with_name(f"{stem.name}.png")))
    return files


def _row(
    record: Record, prediction: Prediction, model: str, recipe: str, running: Execution, dtype: str
) -> dict[str, Any]:
    return {
        **prediction.row(),
        "version": prediction.provenance.version,
        "model": model,
        "model_fingerprint": prediction.provenance.fingerprint,
        "recipe": recipe,
        **running.columns(),
        "dtype": dtype,
        "substitutions": "; ".join(record.substitutions),
    }


def _rejected(record: Rejected) -> dict[str, Any]:
    return {"name": None, "header": record.header, "line": record.line, "error": f"{record.reason}; {record.remedy}"}


def _answerable(model: ESMFold, records: Fasta, run: FoldRun) -> list[Record]:
    """The records that the model may be asked for; the others become failures of the run."""
    answerable = []
    for record in records.records:
        try:
            refuse_unknown(model, record.sequence)
            answerable.append(record)
        except ProtquantError as error:
            _note(f"{records.path}, line {record.line}: {record.header!r}: {error}")
            run.failures.append(
                {"name": record.name, "header": record.header, "line": record.line, "error": str(error)}
            )
    return answerable


def _note_warnings(rows: Iterable[Mapping[str, Any]]) -> None:
    for row in rows:
        if row["warnings"]:
            _note(f"{row['name']}: WARNING: {row['warnings']}")


def _finish(run: FoldRun, records: Fasta, manifest: Manifest) -> None:
    names = {row["name"] for row in run.rows}
    if rows := run.rows + [row for row in manifest.rows() if row["name"] not in names]:
        write_table(rows, run.output / TABLE)
    failures = run.output / FAILURES
    if run.failures:
        write_table(run.failures, failures)
        _note(f"{len(run.failures)} of {len(records.records) + len(records.rejected)} records failed: see {failures}")
    else:
        failures.unlink(missing_ok=True)


def _note(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
