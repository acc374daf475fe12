"""Reading the proteins to fold: FASTA, or a CSV table with the columns `id` and `sequence`.

A fault of the whole file raises an error. A faulty record is set aside with a reason and a remedy, and the others are
read.
"""

import csv
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from protquant.errors import ProtquantError
from protquant.files.outputs import atomic_write
from protquant.files.unpacking import gunzipped, read_bounded
from protquant.proteins.names import Naming, unique_names
from protquant.proteins.sequence import SequenceError, clean_sequence, refuse_nucleotides

__all__ = ["Fasta", "Record", "Rejected", "read_fasta", "write_fasta"]

_COLABFOLD = re.compile(r"#\d+(?:,\d+)*\t\d+(?:,\d+)*\s*$")
_OTHER_MOLECULES = {"ligand": "a ligand", "glycan": "a glycan", "smiles": "a ligand", "ccd": "a ligand"}
_OTHER_MOLECULES |= {"dna": "DNA", "rna": "RNA"}
_CHAIN_NAME = 5
"""Largest length of a chain's name in FASTA files of Boltz."""
_LINE_END = re.compile(r"\r\n|\r|\n")
_MOST_REJECTED = 100_000
"""Largest number of rejected records; a file with more is probably not a file of proteins."""
_REWRITE = "Write it as a FASTA file: a line '>name' before each sequence."


@dataclass(frozen=True)
class Record:
    """A protein to fold.

    Attributes
    ----------
    header : str
        The header as it stands in the file, without `>`.
    sequence : str
        The cleaned sequence: upper case, chains joined by `:`.
    line : int
        Line of the header, from 1.
    name : str
        A safe file stem, unique within the file even if upper and lower case are not distinguished.
    substitutions : tuple of str
        Changes that were made to the sequence, one phrase each.
    """

    header: str
    sequence: str
    line: int
    name: str
    substitutions: tuple[str, ...] = ()

    @property
    def chains(self) -> list[str]:
        """Sequences of the chains."""
        return self.sequence.split(":")

    @property
    def length(self) -> int:
        """Number of residues of all chains."""
        return sum(map(len, self.chains))


@dataclass(frozen=True)
class Rejected:
    """A record that cannot be folded, with the reason and the remedy."""

    header: str
    line: int
    reason: str
    remedy: str


@dataclass(frozen=True)
class Fasta:
    """Content of a file: the records to fold and the rejected ones, both in the order of the file."""

    records: list[Record]
    rejected: list[Rejected]
    path: Path


@dataclass
class _Entry:
    """A record before it is checked; `parts` are its sequence lines with their line numbers."""

    header: str
    line: int
    parts: list[tuple[int, str]]


def read_fasta(
    path: str | os.PathLike[str],
    *,
    max_length: int | None = None,
    nucleotides: bool = False,
    naming: Naming = unique_names,
) -> Fasta:
    """Read the proteins of a file.

    Parameters
    ----------
    path : str or PathLike
        A FASTA file, or a CSV file (by its suffix `.csv`) with the columns `id` and `sequence`; either may be
        compressed with gzip. `-` reads FASTA from standard input. Lines that start with `;` are comments.
    max_length : int, optional
        Records with more residues are rejected.
    nucleotides : bool
        Whether to accept sequences that look like DNA or RNA. By default they are rejected, as are records that Boltz
        or Chai headers declare to be DNA, RNA or ligands.
    naming : callable
        Function that names records by their headers: `unique_names` or `header_names`.

    Returns
    -------
    Fasta

    Raises
    ------
    ProtquantError
        If the file is missing, empty, a folder, not text, has no record, has text before its first header, or has more
        than 100,000 records that cannot be folded.
    """
    source = Path(path)
    text = _read_text(source)
    suffixes = [suffix.lower() for suffix in source.suffixes if suffix.lower() != ".gz"]
    entries = _csv_entries(text, source) if suffixes[-1:] == [".csv"] else _fasta_entries(text, source)
    cleaned: list[tuple[int, _Entry, str, tuple[str, ...]]] = []
    rejected = []
    for ordinal, entry in enumerate(entries, start=1):
        try:
            text = "\n".join(part for _, part in entry.parts)
            _refuse_other_molecules(entry.header, nucleotides)
            if not nucleotides:
                refuse_nucleotides(text)
            sequence, substitutions = clean_sequence(text, max_length)
        except SequenceError as error:
            rejected.append(Rejected(entry.header, entry.line, _located(error, entry), error.remedy))
            if len(rejected) > _MOST_REJECTED:
                raise ProtquantError(
                    f"{_shown(source)}: more than {_MOST_REJECTED:,} records cannot be folded; the first, in line"
                    f" {rejected[0].line}: {rejected[0].reason}. Is this a file of proteins?"
                ) from error
        else:
            cleaned.append((ordinal, entry, sequence, substitutions))
    if not cleaned and not rejected:
        raise ProtquantError(f"{_shown(source)}: no record in this file. {_REWRITE}")
    names = naming([entry.header for _, entry, *_ in cleaned], [ordinal for ordinal, *_ in cleaned])
    records = [
        Record(entry.header, sequence, entry.line, name, substitutions)
        for (_, entry, sequence, substitutions), name in zip(cleaned, names, strict=True)
    ]
    return Fasta(records, rejected, source)


def write_fasta(records: Iterable[Record], path: str | os.PathLike[str], *, width: int = 80) -> Path:
    """Write records as FASTA with `width` characters of sequence per line.

    Raises
    ------
    ProtquantError
        If the file cannot be written.
    """
    blocks = []
    for record in records:
        # A header from a CSV cell may contain line breaks; in FASTA, the text after them would be read as sequence.
        lines = [">" + " ".join(record.header.splitlines())]
        lines += [record.sequence[start : start + width] for start in range(0, len(record.sequence), width)]
        blocks.append("\n".join(lines) + "\n")
    return atomic_write(path, "".join(blocks))


def _read_text(source: Path) -> str:
    """Return the whole file as text, decompressed."""
    try:
        if str(source) == "-":
            data = read_bounded(sys.stdin.buffer, _shown(source))
        else:
            with source.open("rb") as stream:
                data = read_bounded(stream, _shown(source))
    except FileNotFoundError as error:
        raise ProtquantError(f"{source}: there is no such file. Check the path.") from error
    except OSError as error:
        if source.is_dir():
            raise ProtquantError(f"{source}: this is a folder. Name the FASTA file in it.") from error
        raise ProtquantError(f"{source}: the file cannot be read ({error.strerror or error}).") from error
    except ValueError as error:  # the path contains a NUL character
        raise ProtquantError(f"{str(source)!r}: this is not a file name ({error}).") from error
    data = gunzipped(data, _shown(source))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ProtquantError(
            f"{_shown(source)}, line {line}: this is not UTF-8 text (byte 0x{data[error.start]:02x}). "
            "Save the file as plain text in UTF-8; a document or an archive cannot be read."
        ) from error
    if not text.strip():
        raise ProtquantError(f"{_shown(source)}: the file is empty. {_REWRITE}")
    return text


def _fasta_entries(text: str, source: Path) -> Iterator[_Entry]:
    entry: _Entry | None = None
    # Not str.splitlines: it also breaks at characters that a header may contain, such as U+2028 or a vertical tab.
    for number, line in enumerate(_lines(text), start=1):
        if line.startswith(">"):
            if entry is not None:
                yield entry
            entry = _Entry(line[1:].strip(), number, [])
        elif line.startswith(";") or not line.strip():
            continue
        elif entry is None and _COLABFOLD.match(line):
            raise ProtquantError(
                f"{_shown(source)}, line {number}: this is an alignment of ColabFold (a3m), with the lengths of its"
                f" chains in {line.strip()!r}. ESMFold takes no alignment: give a FASTA file of the first sequence,"
                " with ':' between chains."
            )
        elif entry is None:
            raise ProtquantError(
                f"{_shown(source)}, line {number}: sequence text before the first header ({line.strip()[:20]!r}). "
                f"{_REWRITE}"
            )
        else:
            entry.parts.append((number, line))
    if entry is not None:
        yield entry


def _lines(text: str) -> Iterator[str]:
    """Yield lines one by one: for a file of empty lines, a list would be many times as large as the file."""
    start = 0
    for end in _LINE_END.finditer(text):
        yield text[start : end.start()]
        start = end.end()
    yield text[start:]


def _refuse_other_molecules(header: str, nucleotides: bool) -> None:
    """Raise SequenceError if a Boltz or Chai header declares a molecule other than a protein."""
    fields = [field.strip().lower() for field in header.split("|")]
    if len(fields) < 2:
        return
    # Headers are `ligand|name=ATP` in Chai and `B|smiles` in Boltz, where proteins have a third field for the MSA.
    of_boltz = len(fields[0]) <= _CHAIN_NAME and fields[1] in _OTHER_MOLECULES
    kind = fields[0] if fields[0] in _OTHER_MOLECULES else fields[1] if of_boltz else None
    if kind is None or (nucleotides and _OTHER_MOLECULES[kind] in ("DNA", "RNA")):
        return
    raise SequenceError(
        f"its header calls it {_OTHER_MOLECULES[kind]} ({header!r}, as in files of Boltz and Chai)",
        "only proteins are folded here: remove the record",
    )


def _csv_entries(text: str, source: Path) -> Iterator[_Entry]:
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        columns = [column.strip().lower() for column in next(reader)]
        if missing := [column for column in ("id", "sequence") if column not in columns]:
            raise ProtquantError(
                f"{_shown(source)}, line 1: no column {' and '.join(map(repr, missing))} (found {', '.join(columns)}). "
                "The first line of a CSV file names its columns: id,sequence."
            )
        identifier, sequence = columns.index("id"), columns.index("sequence")
        for row in reader:
            if any(row):
                cells = row + [""] * (len(columns) - len(row))
                yield _Entry(cells[identifier].strip(), reader.line_num, [(reader.line_num, cells[sequence])])
    except csv.Error as error:
        raise ProtquantError(
            f"{_shown(source)}, line {reader.line_num}: this is not a CSV table ({error}). "
            "Check the quotes, or write the file as FASTA."
        ) from error


def _located(error: SequenceError, entry: _Entry) -> str:
    """Return the reason; if one character is the cause, with its line in the file."""
    offset = error.offset
    if offset is None:
        return error.reason
    for number, part in entry.parts:
        count = len("".join(part.split()))
        if offset < count:
            return f"{error.reason} (line {number})"
        offset -= count
    return error.reason


def _shown(source: Path) -> str:
    return "standard input" if str(source) == "-" else str(source)
