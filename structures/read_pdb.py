"""The atoms of a PDB file, by gemmi; what gemmi would pass over without a word is looked for before."""

import re

import gemmi
import numpy as np

from protquant.errors import ProtquantError
from protquant.structures.atom_table import AtomTable, strings

__all__ = ["read_pdb"]

_ATOM = ("ATOM  ", "HETATM")
_COORDINATE = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*")
_COORDINATES = ((30, 38), (38, 46), (46, 54))
_RESIDUE = slice(21, 27)  # chain, number, insertion code
_BEHIND_B = 66
_ELEMENT = slice(76, 78)
_NAME_AND_ALTLOC = slice(12, 17)


def read_pdb(text: str, source: str) -> tuple[AtomTable, dict[str, list[str]]]:
    """Read the first model.

    Columns after the coordinates may be missing. A molecule ends at TER; one whose residues are numbered again from
    the beginning, under the same name of a chain, is one of its own without TER too.

    Returns
    -------
    AtomTable
    dict
        Names of all residues of a chain, also of those that were not seen (SEQRES), by name of the chain.

    Raises
    ------
    ProtquantError
        If a line of an atom has no coordinates; names the line.
    """
    lines = _first_model(text)
    _check_coordinates(lines, source)
    try:
        structure = gemmi.read_pdb_string("\n".join(_with_ends(lines)), split_chain_on_ter=True)
    except (RuntimeError, ValueError) as error:  # gemmi's, which quotes the line
        raise ProtquantError(f"{source}: cannot be read as PDB ({' '.join(str(error).split())}).") from error
    sequences = {entity.name: list(entity.full_sequence) for entity in structure.entities if entity.full_sequence}
    return _table(structure[0]), sequences


def _first_model(text: str) -> list[str]:
    lines = text.splitlines()
    ends = next((i for i, line in enumerate(lines) if line.startswith("ENDMDL")), len(lines))
    # A second model that no ENDMDL separates from the first begins anew all the same.
    models = [i for i, line in enumerate(lines[:ends]) if line.startswith("MODEL ")]
    return lines[: models[1] if len(models) > 1 else ends]


def _check_coordinates(lines: list[str], source: str) -> None:
    for number, line in enumerate(lines, start=1):
        if line.startswith(_ATOM) and not all(_COORDINATE.fullmatch(line[start:stop]) for start, stop in _COORDINATES):
            raise ProtquantError(
                f"{source}, line {number}: no coordinates in columns 31 to 54: {line[30:54].rstrip()!r}."
                " PDB has fixed columns; is the line cut off or shifted?"
            )


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
        elif line.startswith(_ATOM):
            if line[_RESIDUE] != current:
                seen.update(alphas)
                begun, current, alphas = len(result), line[_RESIDUE], []
            if line[_NAME_AND_ALTLOC].startswith(" CA "):
                alpha = line[_RESIDUE], line[_NAME_AND_ALTLOC]
                if alpha in seen:
                    result.insert(begun, "TER")
                    seen.clear()
                alphas.append(alpha)
            line = _usual(line)  # noqa: PLW2901 (what follows is about the line as gemmi gets it)
        result.append(line)
    return result


def _usual(line: str) -> str:
    """The line without what may stand behind the B-factor but the element, and with blanks where it is cut off.

    Entries from before 1996 have their name and the number of the line there, where others have segment and charge.
    """
    element = line[_ELEMENT].strip()
    return f"{line[:_BEHIND_B]:{_ELEMENT.start}}{element if element.isalpha() else '':>2}  "


def _table(model: gemmi.Model) -> AtomTable:
    rows = [
        (chain.name, part, residue, atom) for part, chain in enumerate(model) for residue in chain for atom in residue
    ]
    return AtomTable(
        chain=strings([chain for chain, _, _, _ in rows]),
        part=np.array([part for _, part, _, _ in rows], dtype=np.int64),
        number=np.array([residue.seqid.num for _, _, residue, _ in rows], dtype=np.int64),
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
