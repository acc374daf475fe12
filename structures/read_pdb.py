"""The atoms of a PDB file, by gemmi; what gemmi would pass over without a word is looked for before."""

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
    """Read the first model.

    Columns after the coordinates may be missing. A molecule ends at TER and at END; one whose residues are numbered
    again from the beginning, under the same name of a chain, is one of its own without these too. Where chains have no
    names, segments are their names.

    Raises
    ------
    ProtquantError
        If a line of an atom has no coordinates; names the line.
    """
    # gemmi counts columns in bytes, and PDB is ASCII but in names of authors.
    lines, models = _first_model(text.encode("ascii", errors="replace").decode("ascii"))
    _check_coordinates(lines, source)
    segments, four_letters = _has_segments(lines), _lines_with_four_letters(lines)
    lines = [_usual(line, segments, number in four_letters) for number, line in enumerate(lines)]
    try:
        structure = gemmi.read_pdb_string("\n".join(_with_ends(lines)), split_chain_on_ter=True)
    except (RuntimeError, ValueError) as error:  # gemmi's, which quotes the line
        raise ProtquantError(f"{source}: cannot be read as PDB ({' '.join(str(error).split())}).") from error
    table = _table(structure[0]) if len(structure) else _table(gemmi.Model(1))
    # Counted on the lines themselves, so that nothing that gemmi may pass over goes unseen.
    alphas = sum(line[:4].upper() == "ATOM" and line[_NAME].strip() == "CA" for line in lines)
    if (read := int((table.is_ca & ~table.hetero).sum())) < alphas:
        raise ProtquantError(f"{source}: only {read} of the {alphas} C-alphas of its ATOM records could be read.")
    sequences = {entity.name: list(entity.full_sequence) for entity in structure.entities if entity.full_sequence}
    notes = [f"the first of {models} models is read"] if models > 1 else []
    return Reading(table, sequences, notes)


def _first_model(text: str) -> tuple[list[str], int]:
    """The lines of the first model, and how many models there are."""
    lines = text.splitlines()
    records = [line[:6].rstrip().upper() for line in lines]
    begins = [i for i, record in enumerate(records) if record == "MODEL"]
    ends = [i for i, record in enumerate(records) if record == "ENDMDL"]
    if begins or ends:
        # A second model that no ENDMDL separates from the first begins anew all the same.
        stop = min([*begins[1:2], *ends[:1], len(lines)])
        return lines[:stop], max(len(begins), len(ends))
    # Trajectories have END between frames, of the same atoms each; other files that go on behind END are of parts.
    frames = [i for i, record in enumerate(records) if record == "END"]
    sections = [lines[start:stop] for start, stop in pairwise([0, *frames, len(lines)])]
    named = [[line[_IDENTITY] for line in section if _is_atom(line)] for section in sections]
    named = [each for each in named if each]
    if len(named) > 1 and all(each == named[0] for each in named):
        return sections[0], len(named)
    return lines, 1


def _is_atom(line: str) -> bool:
    # A serial number of six digits begins right behind ATOM; some programs write records in lower case.
    return line[:4].upper() == "ATOM" or line[:6].upper() == "HETATM"


def _check_coordinates(lines: list[str], source: str) -> None:
    for number, line in enumerate(lines, start=1):
        if _is_atom(line) and not all(_COORDINATE.fullmatch(line[start:stop]) for start, stop in _COORDINATES):
            raise ProtquantError(
                f"{source}, line {number}: no coordinates in columns 31 to 54: {line[30:54].rstrip()!r}."
                " PDB has fixed columns; is the line cut off or shifted?"
            )


def _has_segments(lines: list[str]) -> bool:
    """Whether chains have no names, and segments tell them apart: of entries from before 1996 all have the same."""
    atoms = [line for line in lines if _is_atom(line)]
    return {line[_CHAIN] for line in atoms} == {" "} and len({line[_SEGMENT] for line in atoms}) > 1


def _lines_with_four_letters(lines: list[str]) -> set[int]:
    """Numbers of lines whose residue's name has a fourth letter, where names of chains of two letters begin.

    The letter of a chain stands behind residues of several names, one after the other.
    """
    found: set[int] = set()
    run: list[int] = []
    for number, line in enumerate([*lines, ""]):
        if run and not (_is_atom(line) and line[_CHAIN_OF_TWO] == lines[run[0]][_CHAIN_OF_TWO]):
            if len({lines[each][_RESIDUE_NAME] for each in run}) == 1:
                found.update(run)
            run = []
        if _is_atom(line) and line[_FOURTH].strip():
            run.append(number)
    return found


def _usual(line: str, segments: bool, four_letters: bool) -> str:
    """The line of an atom as gemmi reads it best; others are given back.

    What may stand behind the B-factor is left out but for the element, as entries from before 1996 have their name and
    the number of the line there; so are the fourth letters of residues' names, which would become chains.
    """
    if line[:6].rstrip().upper() in ("END", "TER"):
        return "TER"
    if not _is_atom(line):
        return line
    line = line.ljust(_ELEMENT.stop)
    residue = line[17:21]
    if four_letters:
        # LYSH of GROMOS is a lysine, NALA of AMBER the alanine that a chain begins with.
        residue = f"{residue[1:] if residue[0] in 'NC' and residue[1:] in NAMES else residue[:3]} "
    record = "ATOM  " if line[:4].upper() == "ATOM" else "HETATM"
    segment, element = line[_SEGMENT] if segments else "", line[_ELEMENT].strip()
    behind = f"{segment:4}{element if element.isalpha() else '':>2}  "
    return f"{record}{line[6:17]}{residue}{line[21:_BEHIND_B]}      {behind}"


def _with_ends(lines: list[str]) -> list[str]:
    """Put TER before a residue whose C-alpha was listed before: gemmi would take both for one residue."""
    seen: set[tuple[str, str]] = set()
    result: list[str] = []
    begun, current = 0, ""  # where the current residue begins in `result`
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
