"""Fold a batch of records, write its files and record it, in this process or in workers."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from protquant.errors import ProtquantError
from protquant.files import Manifest, OutputError
from protquant.models import ESMFold
from protquant.predicting.fold_outputs import Layout
from protquant.predicting.fold_run import FoldRun, note_warnings
from protquant.predicting.folding import fold_within_memory
from protquant.proteins import Fasta, Prediction, Record
from protquant.reporting.event_log import log_event
from protquant.reporting.progress import Progress
from protquant.running.execution import Execution
from protquant.running.memory import MemoryBudget

__all__ = ["FoldJob", "Kept", "record_all"]

T = TypeVar("T")


@dataclass(frozen=True)
class Kept:
    """The outcome of a record: its files and its row, or an error.

    Attributes
    ----------
    seconds : float
        Seconds for folding and writing, averaged over the batch.
    """

    record: Record
    files: Sequence[Path] = ()
    row: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class FoldJob:
    """Folds a batch and writes its files; can be called in this process or in workers."""

    model: ESMFold
    running: Execution
    output: Path
    layout: Layout
    what: Mapping[str, str]
    num_recycles: int | None
    recycle_tolerance: float
    chunk_size: int | None
    budget: MemoryBudget

    def __call__(self, batch: list[Record]) -> tuple[list[Kept], dict[str, Any]]:
        """Return the outcome of each record, and the execution of the model."""
        began = time.monotonic()
        kept = [self._keep(record, outcome) for record, outcome in self._fold(batch)]
        seconds = (time.monotonic() - began) / len(kept)
        return [replace(each, seconds=seconds) for each in kept], self.running.to_dict()

    def _fold(self, batch: list[Record]) -> list[tuple[Record, Prediction | str]]:
        """Return every record with its prediction or its error message."""
        outcomes: list[Prediction] | list[str]
        try:
            outcomes = fold_within_memory(
                self.model,
                [record.sequence for record in batch],
                [record.name for record in batch],
                [record.header for record in batch],
                num_recycles=self.num_recycles,
                recycle_tolerance=self.recycle_tolerance,
                chunk_size=self.chunk_size,
                budget=self.budget,
            )
        except ProtquantError as error:
            outcomes = [str(error)]
        # Outside of the except clause, where the error would keep the tensors of the failed attempt alive.
        if len(outcomes) == len(batch):
            return list(zip(batch, outcomes, strict=True))
        # One at a time, so that an error of one record does not affect the others.
        return [pair for record in batch for pair in self._fold([record])]

    def _keep(self, record: Record, outcome: Prediction | str) -> Kept:
        """Write the files of a prediction, and return the outcome."""
        if isinstance(outcome, str):
            return Kept(record, error=outcome)
        try:
            files = self.layout.write(outcome, self.output)
        except OutputError:
            raise
        except ProtquantError as error:
            return Kept(record, error=str(error))
        row = {
            **outcome.row(),
            "version": outcome.provenance.version,
            "model": self.what["model"],
            "model_fingerprint": outcome.provenance.fingerprint,
            "recipe": self.what["recipe"],
            **self.running.columns(),
            "dtype": self.what["dtype"],
            "substitutions": "; ".join(record.substitutions),
        }
        return Kept(record, files, row)


def record_all(
    finished: Iterator[tuple[list[Kept], dict[str, Any]]],
    run: FoldRun,
    records: Fasta,
    manifest: Manifest,
    prints: Mapping[str, str],
    tell: Progress,
    total: int,
    on_batch: Callable[[Sequence[Kept]], None] | None = None,
) -> None:
    """Record each batch as a whole, so that an interrupted run resumes with the same batches.

    `on_batch` is called with each batch after it is recorded.
    """
    done = 0
    while (batch := _next(finished, done, total)) is not None:
        run.execution = batch[1]
        with _saying_what_is_safe(done, total), manifest.together():
            for kept in batch[0]:
                record, print_ = kept.record, prints[kept.record.name]
                if kept.error is not None:
                    run.fail(records, record, kept.error)
                    manifest.record_failure(record.name, record.header, print_, kept.error)
                else:
                    manifest.record(record.name, record.header, print_, kept.files, kept.row)
                    note_warnings([kept.row])
                done += 1
                tell("proteins", "protein", done, total, record.name)
        for kept in batch[0]:  # after they are recorded
            if kept.error is None:
                facts = {name: kept.row[name] for name in ("length", "recycles", "mean_plddt")}
                log_event("done", target=kept.record.name, **facts, batch=len(batch[0]), seconds=round(kept.seconds, 3))
        if on_batch is not None:
            on_batch(batch[0])


def _next(finished: Iterator[T], done: int, total: int) -> T | None:
    """Return the next finished batch; None after the last."""
    with _saying_what_is_safe(done, total):
        return next(finished, None)


@contextmanager
def _saying_what_is_safe(done: int, total: int) -> Iterator[None]:
    """Turn an output error into one that also says how many targets are done; it ends the run."""
    try:
        yield
    except OutputError as error:
        raise OutputError(
            f"{error} {done} of {total} targets of this run are done and stay so; run the same command again to go on."
        ) from error
