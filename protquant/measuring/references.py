"""Load reference structures, with notes on them."""

from pathlib import Path

from protquant.reporting.progress import note
from protquant.structures import Reference, load_references

__all__ = ["references_of"]


def references_of(folder: Path | None, limit: int | None = None) -> list[Reference]:
    """Return the result of `load_references`; print notes, such as on left-out residues, to standard error."""
    references = load_references(folder, limit)
    for reference in references:
        for each in reference.notes:
            note(f"{reference.source}: {each}")
    return references
