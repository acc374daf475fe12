"""Residues are counted before anything is chosen, and after: none vanishes without a word."""

from collections.abc import Iterator

import numpy as np

from protquant.errors import ProtquantError
from protquant.structures.atom_table import AtomTable
from protquant.structures.reference import Reference

__all__ = ["take_census"]

_NAMED = 5


def take_census(table: AtomTable, reference: Reference, source: str) -> list[str]:
    """Compare the residues of a structure with the C-alphas of the file's ATOM records.

    C-alphas are counted one by one, and not by their numbers, which may be what is wrong: only further places of one
    residue (alternate locations) count once.

    Returns
    -------
    list of str
        What to tell people; empty where all residues are there.

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
    # Residues with the same name, number and insertion code are one in `found`.
    lost = max(len(missing), expected - len(found.intersection([*single, *places])))
    if not lost:
        return []
    named = ", ".join(f"{chain or '-'} {number}{insertion}" for chain, number, insertion in missing[:_NAMED])
    which = f" ({named}{', ...' if len(missing) > _NAMED else ''})" if named else ""
    what = f"{lost} of {expected} residues with a C-alpha are left out{which}: no amino acids, or two of one number"
    if lost > expected / 2:
        raise ProtquantError(f"{source}: {what}. So few are left that nothing can be said of it.")
    return [what]


def _identities(table: AtomTable, rows: "np.ndarray") -> Iterator[tuple[str, int, str]]:
    return zip(table.chain[rows].tolist(), table.number[rows].tolist(), table.insertion[rows].tolist(), strict=True)
