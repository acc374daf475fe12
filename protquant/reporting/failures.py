"""Records of a FASTA file that failed: a message tells of each, and a table lists them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from protquant.files import write_table
from protquant.proteins import Fasta, Record, Rejected
from protquant.reporting.event_log import log_event
from protquant.reporting.progress import note

__all__ = ["read_failures", "told_failure", "write_failures"]


def read_failures(records: Fasta) -> list[dict[str, Any]]:
    """Tell of what was changed in the records of a file, and return those that cannot be read, as failures."""
    for record in records.records:
        for change in record.substitutions:
            note(f"{records.path}, line {record.line}: {record.header!r}: {change}")
    return [told_failure(records, each, f"{each.reason}; {each.remedy}") for each in records.rejected]


def told_failure(records: Fasta, record: Record | Rejected, error: str) -> dict[str, Any]:
    """Tell of a failure, and return its row: `name header line error`."""
    note(f"{records.path}, line {record.line}: {record.header!r}: {error}", "error")
    name = record.name if isinstance(record, Record) else None
    log_event("failed", "error", target=name, header=record.header, line=record.line, error=error)
    return {"name": name, "header": record.header, "line": record.line, "error": error}


def write_failures(failures: Sequence[dict[str, Any]], records: Fasta, path: Path) -> None:
    """Write the table, and tell how many there are; without failures there is no table.

    Raises
    ------
    ProtquantError
        If it cannot be written.
    """
    if not failures:
        path.unlink(missing_ok=True)
        return
    write_table(failures, path)
    note(f"{len(failures)} of {len(records.records) + len(records.rejected)} records failed: see {path}")
