"""One conformation of a residue whose atoms a file gives in several."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protquant.structures.atom_table import AtomTable

__all__ = ["one_conformation"]


def one_conformation(table: AtomTable) -> NDArray[np.int64]:
    """Rows that make up one conformation, the atoms of each residue together.

    Whatever letter or digit an alternate location has: of each residue the one with the most occupancy is taken, and
    for an atom that it does not have, the most occupied of the others, so that no atom is lost. Of residues of
    different types in one place, that with the most occupied C-alpha is taken.

    Parameters
    ----------
    table : AtomTable
        With a name of its own for each molecule.
    """
    residues: dict[tuple[str, int, str, str], list[int]] = defaultdict(list)
    identities = zip(
        table.chain.tolist(),
        table.number.tolist(),
        table.insertion.tolist(),
        # A ligand may have the number of a residue; it is no other type of it, unless they are alternatives.
        np.where(table.hetero & (table.altloc == ""), table.residue, "").tolist(),
        strict=True,
    )
    for row, identity in enumerate(identities):
        residues[identity].append(row)
    kept: list[int] = []
    for rows in residues.values():
        kept += rows if not table.altloc[rows].astype(bool).any() else _chosen(table, _of_one_type(table, rows))
    return np.array(kept, dtype=np.int64)


def _of_one_type(table: AtomTable, rows: list[int]) -> list[int]:
    occupied: dict[str, float] = defaultdict(float)
    for row in rows:
        occupied[str(table.residue[row])] += float(table.occupancy[row]) * (1000.0 if table.atom[row] == "CA" else 1e-3)
    best = max(occupied, key=lambda name: occupied[name])  # the first of equals
    return [row for row in rows if table.residue[row] == best]


def _chosen(table: AtomTable, rows: Sequence[int]) -> list[int]:
    occupied: dict[str, float] = defaultdict(float)
    for row in rows:
        if altloc := str(table.altloc[row]):
            occupied[altloc] += float(table.occupancy[row])
    best = max(occupied, key=lambda name: occupied[name], default="")
    chosen: dict[str, int] = {}
    for row in rows:
        name = str(table.atom[row])
        if name not in chosen or _rank(table, row, best) > _rank(table, chosen[name], best):
            chosen[name] = row
    return list(chosen.values())


def _rank(table: AtomTable, row: int, best: str) -> tuple[bool, float]:
    return table.altloc[row] in ("", best), float(table.occupancy[row])
