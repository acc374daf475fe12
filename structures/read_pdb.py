"""Reading the atoms of PDB files by gemmi, with checks for lines that gemmi would silently ignore."""

import re
from itertools import pairwise

import gemmi
import numpy as np

from protquant.errors import ProtquantError
from protquant.structures.atom_table import AtomTable, Reading, strings
from protquant.structures.protein_atoms import NAMES

__all__ = ["read_pdb"]

_COORDINATE = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*")
_COORDINATES = ((30, 38), (38, 46), (46, 54))
_NAME, _ALTLOC, _RESIDUE_NAME = slice(12, 16), slice(16, 17), slice(17, 20)
_FOURTH, _CHAIN, _CHAIN_OF_TWO = slice(20, 21), slice(21, 22), slice(20, 22)
_IDENTITY = slice(12, 27)
_RESIDUE = slice(21, 27)  # chain, number, insertion code
_BEHIND_B = 66
_SEGMENT, _ELEMENT = slice(72, 76), slice(76, 78)


def read_pdb(text: str, source: str) -> Reading:
    """Read the first model of a file.

    Columns after the coordinates may be missing. A molecule ends at TER, at END, or where residue numbers of a chain
    restart. If chains have no names, segments name them.

    Raises
    ------
    ProtquantError
        If the line of an atom has no coordinates; the message names the line.
    """
    # gemmi counts columns in bytes. PDB files are ASCII, except for some names of authors.
    lines, models = _first_model(text.encode("ascii", errors="replace").decode("ascii"))
    _check_coordinates(lines, source)
    segments, four_letters = _has_segments(lines), _lines_with_four_letters(lines)
    lines = [_usual(line, segments, number in four_letters) for number, line in enumerate(lines)]
    try:
        structure = gemmi.read_pdb_string("\n".join(_with_ends(lines)), split_chain_on_ter=True)
    except (RuntimeError, ValueError) as error:  # gemmi's message quotes the line
        raise ProtquantError(f"{source}: cannot be read as PDB ({' '.join(str(error).split())}).") from error
    table = _table(structure[0]) if len(structure) else _table(gemmi.Model(1))
    # Count C-alphas in the lines, to notice atoms that gemmi ignored.
    alphas = sum(line[:4].upper() == "ATOM" and line[_NAME].strip() == "CA" for line in lines)
    if (read := int((table.is_ca & ~table.hetero).sum())) < alphas:
        raise ProtquantError(f"{source}: only {read} of the {alphas} C-alphas of its ATOM records could be read.")
    sequences = {entity.name: list(entity.full_sequence) for entity in structure.entities if entity.full_sequence}
    notes = [f"the first of {models} models is read"] if models > 1 else []
    return Reading(table, sequences, notes)


def _first_model(text: str) -> tuple[list[str], int]:
    """Return the lines of the first model, and the number of models."""
    lines = text.splitlines()
    records = [line[:6].rstrip().upper() for line in lines]
    begins = [i for i, record in enumerate(records) if record == "MODEL"]
    ends = [i for i, record in enumerate(records) if record == "ENDMDL"]
    if begins or ends:
        # The first model also ends at a second MODEL line, if its ENDMDL is missing.
        stop = min([*begins[1:2], *ends[:1], len(lines)])
        return lines[:stop], max(len(begins), len(ends))
    # In a trajectory, END separates frames of equal atoms; in other files, the atoms after END are further parts.
    frames = [i for i, record in enumerate(records) if record == "END"]
    sections = [lines[start:stop] for start, stop in pairwise([0, *frames, len(lines)])]
    named = [[line[_IDENTITY] for line in section if _is_atom(line)] for section in sections]
    named = [names for names in named if names]
    if len(named) > 1 and all(names == named[0] for names in named):
        return sections[0], len(named)
    return lines, 1


def _is_atom(line: str) -> bool:
    # A serial number of six digits follows ATOM without a space; some programs write records in lower case.
    return line[:4].upper() == "ATOM" or line[:6].upper() == "HETATM"


def _check_coordinates(lines: list[str], source: str) -> None:
    for number, line in enumerate(lines, start=1):
        if _is_atom(line) and not all(_COORDINATE.fullmatch(line[start:stop]) for start, stop in _COORDINATES):
            raise ProtquantError(
                f"{source}, line {number}: no coordinates in columns 31 to 54: {line[30:54].rstrip()!r}."
                " PDB has fixed columns; is the line cut off or shifted?"
            )


def _has_segments(lines: list[str]) -> bool:
    """Return whether segments must name the chains; entries from before 1996 have one segment name throughout."""
    atoms = [line for line in lines if _is_atom(line)]
    return {line[_CHAIN] for line in atoms} == {" "} and len({line[_SEGMENT] for line in atoms}) > 1


def _lines_with_four_letters(lines: list[str]) -> set[int]:
    """Return the numbers of lines with four-letter residue names; chain names of two letters begin in the same column.

    In a run of equal letters there, only the name of a chain follows different residue names.
    """
    found: set[int] = set()
    run: list[int] = []
    for number, line in enumerate([*lines, ""]):
        if run and not (_is_atom(line) and line[_CHAIN_OF_TWO] == lines[run[0]][_CHAIN_OF_TWO]):
            if len({lines[atom][_RESIDUE_NAME] for atom in run}) == 1:
                found.update(run)
            run = []
        if _is_atom(line) and line[_FOURTH].strip():
            run.append(number)
    return found


def _usual(line: str, segments: bool, four_letters: bool) -> str:
    """Return the line of an atom in the form that gemmi reads correctly; return other lines unchanged.

    Columns after the B-factor are dropped except for the element, as entries from before 1996 have their name and the
    number of the line there. The fourth letter of a residue's name is dropped, as gemmi would take it for a chain.
    """
    if line[:6].rstrip().upper() in ("END", "TER"):
        return "TER"
    if not _is_atom(line):
        return line
    line = line.ljust(_ELEMENT.stop)
    residue = line[17:21]
    if four_letters:
        # LYSH of GROMOS is a lysine; NALA of AMBER is an alanine at the start of a chain.
        residue = f"{residue[1:] if residue[0] in 'NC' and residue[1:] in NAMES else residue[:3]} "
    record = "ATOM  " if line[:4].upper() == "ATOM" else "HETATM"
    segment, element = line[_SEGMENT] if segments else "", line[_ELEMENT].strip()
    behind = f"{segment:4}{element if element.isalpha() else '':>2}  "
    return f"{record}{line[6:17]}{residue}{line[21:_BEHIND_B]}      {behind}"


def _with_ends(lines: list[str]) -> list[str]:
    """Insert TER before a residue whose C-alpha occurred before; otherwise gemmi would merge the two residues."""
    seen: set[tuple[str, str]] = set()
    result: list[str] = []
    begun, current = 0, ""  # index in `result` where the current residue begins
    alphas: list[tuple[str, str]] = []
    for line in lines:
        if line.startswith("TER"):
            seen.clear()
            current, alphas = "", []
        elif _is_atom(line):
            residue = line[_RESIDUE] + line[_SEGMENT]
            if residue != current:
                seen.update(alphas)
                begun, current, alphas = len(result), residue, []
            if line[_NAME] == " CA ":
                alpha = residue, line[_ALTLOC]
                if alpha in seen:
                    result.insert(begun, "TER")
                    seen.clear()
                alphas.append(alpha)
        result.append(line)
    return result


def _table(model: gemmi.Model) -> AtomTable:
    rows = [
        (chain.name, part, residue, atom) for part, chain in enumerate(model) for residue in chain for atom in residue
    ]
    return AtomTable(
        chain=strings([chain or residue.segment for chain, _, residue, _ in rows]),
        part=np.array([part for _, part, _, _ in rows], dtype=np.int64),
        number=np.array([residue.seqid.num or 0 for _, _, residue, _ in rows], dtype=np.int64),
        insertion=strings([residue.seqid.icode.strip() for _, _, residue, _ in rows]),
        residue=strings([residue.name for _, _, residue, _ in rows]),
        atom=strings([atom.name for _, _, _, atom in rows]),
        altloc=strings([atom.altloc.strip("\0 ") for _, _, _, atom in rows]),
        element=strings([atom.element.name.upper() for _, _, _, atom in rows]),
        hetero=np.array([residue.het_flag == "H" for _, _, residue, _ in rows], dtype=bool),
        occupancy=np.array([atom.occ for _, _, _, atom in rows], dtype=float),
        b_factor=np.array([atom.b_iso for _, _, _, atom in rows], dtype=float),
        position=np.array([atom.pos.tolist() for _, _, _, atom in rows], dtype=float).reshape(-1, 3),
    )
