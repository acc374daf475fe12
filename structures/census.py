"""Comparison of the residues before and after selection, so that missing residues are reported."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from protquant.errors import ProtquantError
from protquant.structures.atom_table import AtomTable
from protquant.structures.protein_atoms import is_amino_acid
from protquant.structures.reference import Reference

__all__ = ["take_census"]

_NAMED = 5


def take_census(table: AtomTable, reference: Reference, source: str) -> list[str]:
    """Compare the residues of a structure with the C-alphas of the file's ATOM records.

    Every C-alpha counts, even if residue numbers repeat, because the numbers may be wrong. Only alternate locations of
    one residue count once.

    Returns
    -------
    list of str
        Remarks for the user; empty if no residue is missing.

    Raises
    ------
    ProtquantError
        If more than half of the residues are missing.
    """
    alphas = np.flatnonzero(table.is_ca & ~table.hetero)
    alternate = table.altloc[alphas] != ""
    places = set(_identities(table, alphas[alternate]))
    single = list(_identities(table, alphas[~alternate]))
    expected = len(single) + len(places.difference(single))
    atoms = reference.atoms
    found = set(zip(atoms.chain_id, atoms.res_id.tolist(), atoms.ins_code, strict=True))
    missing = [identity for identity in dict.fromkeys([*single, *sorted(places)]) if identity not in found]
    # `found` merges residues with the same chain, number and insertion code, so use the larger of the two counts.
    lost = max(len(missing), expected - len(found.intersection([*single, *places])))
    notes = _left_out_beside(table, found)
    if not lost:
        return notes
    named = ", ".join(f"{chain or '-'} {number}{insertion}" for chain, number, insertion in missing[:_NAMED])
    which = f" ({named}{', ...' if len(missing) > _NAMED else ''})" if named else ""
    what = f"{lost} of {expected} residues with a C-alpha are left out{which}: not amino acids, or repeated numbers"
    if lost > expected / 2:
        raise ProtquantError(f"{source}: {what}. Too few residues are left to use the structure.")
    return [what, *notes]


def _left_out_beside(table: AtomTable, found: set[tuple[str, int, str]]) -> list[str]:
    """Return a remark on amino acids marked as HETATM that are left out; they may be ligands or part of a chain."""
    rows = np.flatnonzero(table.is_ca & table.hetero)
    names = {
        (str(table.chain[row]), int(table.number[row]), str(table.insertion[row])): str(table.residue[row])
        for row in rows
        if is_amino_acid(str(table.residue[row]))
    }
    left = [
        f"{name} {chain} {number}{code}"
        for (chain, number, code), name in names.items()
        if (chain, number, code) not in found
    ]
    if not left:
        return []
    named = f"{', '.join(left[:_NAMED])}{', ...' if len(left) > _NAMED else ''}"
    return [f"{len(left)} amino acids that are marked as HETATM and not part of a chain are left out: {named}"]


def _identities(table: AtomTable, rows: NDArray[np.int64]) -> Iterator[tuple[str, int, str]]:
    return zip(table.chain[rows].tolist(), table.number[rows].tolist(), table.insertion[rows].tolist(), strict=True)
