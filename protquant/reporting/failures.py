"""Records of a FASTA file that failed: a message for each, and a table of all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from protquant.files import write_table
from protquant.proteins import Fasta, Record, Rejected
from protquant.reporting.event_log import log_event
from protquant.reporting.progress import note

__all__ = ["note_failure", "read_failures", "write_failures"]


def read_failures(records: Fasta) -> list[dict[str, Any]]:
    """Print the changes to each record of a file, and return a failure for each record that cannot be read."""
    for record in records.records:
        for change in record.substitutions:
            note(f"{records.path}, line {record.line}: {record.header!r}: {change}")
    return [note_failure(records, rejected, f"{rejected.reason}; {rejected.remedy}") for rejected in records.rejected]


def note_failure(records: Fasta, record: Record | Rejected, error: str) -> dict[str, Any]:
    """Print a failure, and return its row with the columns `name`, `header`, `line` and `error`."""
    note(f"{records.path}, line {record.line}: {record.header!r}: {error}", "error")
    name = record.name if isinstance(record, Record) else None
    log_event("failed", "error", target=name, header=record.header, line=record.line, error=error)
    return {"name": name, "header": record.header, "line": record.line, "error": error}


def write_failures(failures: Sequence[dict[str, Any]], records: Fasta, path: Path) -> None:
    """Write the table of failures, and print their number; without failures, do nothing.

    Raises
    ------
    ProtquantError
        If the table cannot be written.
    """
    if not failures:
        path.unlink(missing_ok=True)
        return
    write_table(failures, path)
    note(f"{len(failures)} of {len(records.records) + len(records.rejected)} records failed: see {path}")
