"""The results of folding a FASTA file: predictions and failures."""

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
    """Results of the records of a FASTA file.

    Attributes
    ----------
    output : Path
    rows : list of dict
        One row per record that is done, in this run or an earlier one.
    skipped : list of str
        Targets that an earlier run has done with the same settings.
    failures : list of dict
        `name`, `header`, `line` and `error` of every record that was not folded.
    settings : dict
        Settings that the predictions depend on, such as model and recipe. Targets with other settings are folded again.
    execution : dict
        Execution of the model and of each of its parts; empty if all targets were done.
    gpu_peak_bytes : int or None
        Peak memory of tensors on the GPU; None on a CPU.
    part : str
        Label of the shard; empty for a whole run.
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
        """Return the run as a JSON document."""
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
        """Return a new run, whose failures are the unreadable records; print a note on each changed record."""
        return cls(output, failures=read_failures(records), part=part)

    def fail(self, records: Fasta, record: Record, error: str) -> None:
        """Add a failure, and print a note on it."""
        self.failures.append(note_failure(records, record, error))

    def finish(self, records: Fasta, manifest: Manifest) -> "FoldRun":
        """Write the table of all targets in the folder, and the table of this run's failures."""
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
    """Return the path of the table of predictions of a folder, or of a shard."""
    return output / f"{_TABLE}{f'.{part}' if part else ''}.csv"


def failures_file(output: Path, part: str = "") -> Path:
    """Return the path of the table of failures of a folder, or of a shard."""
    return output / f"{_FAILURES}{f'.{part}' if part else ''}.csv"


def note_warnings(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print the warnings of predictions."""
    for row in rows:
        if row["warnings"]:
            note(f"{row['name']}: WARNING: {row['warnings']}", "warning")
