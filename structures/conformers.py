"""Selection of one conformation of residues with alternate locations."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protquant.structures.atom_table import AtomTable

__all__ = ["one_conformation"]


def one_conformation(table: AtomTable) -> NDArray[np.int64]:
    """Return the rows of one conformation, with the atoms of each residue together.

    For each residue, the alternate location with the largest occupancy is taken. An atom that is missing there is taken
    from the most occupied location that has it, so that no atom is lost. If residues of different types share a place,
    the one with the most occupied C-alpha is taken.

    Parameters
    ----------
    table : AtomTable
        Atoms in which each molecule has a chain name of its own (`name_molecules`).
    """
    residues: dict[tuple[str, int, str, str], list[int]] = defaultdict(list)
    identities = zip(
        table.chain.tolist(),
        table.number.tolist(),
        table.insertion.tolist(),
        # A ligand may share the number of a residue; it is a type of that residue only if it has an alternate location.
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
    best = max(occupied, key=lambda name: occupied[name])  # the first one if several are equal
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
