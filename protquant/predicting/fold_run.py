"""What became of the records of a FASTA file that were to be folded."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protquant.files import Manifest, write_table
from protquant.proteins import Fasta, Record
from protquant.reporting.failures import note_failure, read_failures, write_failures
from protquant.reporting.progress import note

__all__ = ["FoldRun", "failures_file", "note_warnings", "predictions_file"]

_TABLE, _FAILURES = "predictions", "failures"


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
    gpu_peak_bytes : int or None
        The most that tensors took of a GPU at once; None on a CPU.
    part : str
        Label of the shard that this run is; empty for the whole.
    """

    output: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    execution: dict[str, Any] = field(default_factory=dict)
    gpu_peak_bytes: int | None = None
    part: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The run as one JSON document."""
        return {
            "output": str(self.output),
            "settings": self.settings,
            "execution": self.execution,
            "gpu_peak_bytes": self.gpu_peak_bytes,
            "predictions": self.rows,
            "skipped": self.skipped,
            "failures": self.failures,
        }

    @classmethod
    def begin(cls, output: Path, records: Fasta, part: str = "") -> "FoldRun":
        """Begin with the records that cannot be read, which are failures, and tell of what was changed in others."""
        return cls(output, failures=read_failures(records), part=part)

    def fail(self, records: Fasta, record: Record, error: str) -> None:
        """Add a failure, and tell of it."""
        self.failures.append(note_failure(records, record, error))

    def finish(self, records: Fasta, manifest: Manifest) -> "FoldRun":
        """Write the tables of all targets of the folder, and of this run's failures."""
        entries, failed = manifest.entries, {failure["name"] for failure in self.failures}
        self.rows = [dict(entries[record.name].row) for record in records.records if record.name not in failed]
        names = {row["name"] for row in self.rows}
        if rows := self.rows + [row for row in manifest.rows() if row["name"] not in names]:
            write_table(rows, predictions_file(self.output, self.part))
        write_failures(self.failures, records, failures_file(self.output, self.part))
        if self.part:
            manifest.end()
        return self


def predictions_file(output: Path, part: str = "") -> Path:
    """The table of predictions of a folder, or of a shard of it."""
    return output / f"{_TABLE}{f'.{part}' if part else ''}.csv"


def failures_file(output: Path, part: str = "") -> Path:
    """The table of failures of a folder, or of a shard of it."""
    return output / f"{_FAILURES}{f'.{part}' if part else ''}.csv"


def note_warnings(rows: Iterable[Mapping[str, Any]]) -> None:
    """Tell of the warnings of predictions."""
    for row in rows:
        if row["warnings"]:
            note(f"{row['name']}: WARNING: {row['warnings']}", "warning")
