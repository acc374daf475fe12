"""Separation of molecules that share the name of a chain in a file."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from protquant.residues import MAX_CA_DISTANCE
from protquant.structures.atom_table import AtomTable, strings

__all__ = ["name_molecules"]

Residue = tuple[int, str]


@dataclass
class _Molecule:
    name: str
    residues: set[Residue] = field(default_factory=set)
    last: int | None = None
    end: NDArray[np.float64] = field(default_factory=lambda: np.full(3, np.nan))

    def goes_on(self, residues: list[Residue], begin: NDArray[np.float64]) -> bool:
        """Return whether the next part of the file, with these residues, continues this molecule."""
        if self.last is None:
            return True
        if residues[0][0] < self.last or not self.residues.isdisjoint(residues):
            return False
        # Consecutive numbers mean that no residue is missing in between, so the two must be bonded.
        return residues[0][0] != self.last + 1 or bool(np.linalg.norm(begin - self.end) <= MAX_CA_DISTANCE)


def name_molecules(table: AtomTable) -> tuple[NDArray[np.str_], list[str]]:
    """Return a distinct name for each molecule.

    A file may separate parts of one chain (by TER or `label_asym_id`). They are one molecule if their residue numbers
    continue, because a chain may have gaps. If numbers restart, or residues with consecutive numbers are not bonded,
    the second part is another molecule, and a number is appended to its name.

    Returns
    -------
    ndarray of str
        Name for each row.
    list of str
        Remarks on molecules with new names, for the user.
    """
    names = table.chain.astype(object)
    taken = set(table.chain.tolist())
    latest: dict[str, _Molecule] = {}
    numbers = Counter[str]()
    notes = []
    alphas = table.is_ca & ~table.hetero
    starts = np.flatnonzero(np.diff(table.part, prepend=-1) | (table.chain[:] != np.roll(table.chain, 1)))
    for start, stop in zip(starts, [*starts[1:], len(table)], strict=True):
        chain = str(table.chain[start])
        rows = start + np.flatnonzero(alphas[start:stop])
        residues = list(zip(table.number[rows].tolist(), table.insertion[rows].tolist(), strict=True))
        molecule = latest.setdefault(chain, _Molecule(chain))
        if residues and not molecule.goes_on(residues, table.position[rows[0]]):
            molecule = latest[chain] = _Molecule(_free(chain, taken, numbers))
            taken.add(molecule.name)
            notes.append(
                f"chain {chain!r} is the name of several molecules: the one from residue {residues[0][0]}"
                f"{residues[0][1]} on is called {molecule.name!r} here"
            )
        names[start:stop] = molecule.name
        if residues:
            molecule.residues.update(residues)
            molecule.last, molecule.end = residues[-1][0], table.position[rows[-1]]
    return strings(names.tolist()), notes


def _free(chain: str, taken: set[str], numbers: Counter[str]) -> str:
    while True:
        numbers[chain] += 1
        if (name := f"{chain}{numbers[chain] + 1}") not in taken:
            return name


def in_sequence(table: AtomTable) -> NDArray[np.int64]:
    """Return an order of rows with modified residues in their places; a file may list them after their chain.

    Parameters
    ----------
    table : AtomTable
        Atoms, with the rows of each residue together.
    """
    alphas = np.flatnonzero(table.is_ca)
    residue = _residues(table)
    place = table.number + np.array(
        [(ord(code[0]) - ord("A") + 1) / 100 if code else 0 for code in table.insertion.tolist()]
    )
    order = np.arange(len(table), dtype=float)
    for name in np.unique(table.chain[alphas]):
        of_chain = alphas[table.chain[alphas] == name]
        polymer = of_chain[~table.hetero[of_chain]]
        for alpha in of_chain[table.hetero[of_chain]]:
            before, behind = polymer[place[polymer] < place[alpha]], polymer[place[polymer] > place[alpha]]
            # Move it only if it is listed after a residue with a larger number.
            if not len(behind) or alpha < behind.min():
                continue
            rows = np.arange(*np.searchsorted(residue, [residue[alpha], residue[alpha] + 1]))
            within = (place[alpha] - table.number.min()) * 1e-6 + np.arange(len(rows)) * 1e-9
            if len(before):
                order[rows] = np.searchsorted(residue, residue[before.max()], side="right") - 1 + within
            elif np.linalg.norm(table.position[alpha] - table.position[behind.min()]) <= MAX_CA_DISTANCE:
                order[rows] = np.searchsorted(residue, residue[behind.min()]) - 1 + within
    return np.argsort(order, kind="stable").astype(np.int64)


def _residues(table: AtomTable) -> NDArray[np.int64]:
    """Return the index of the residue of each row, from 0, ascending."""
    columns = (table.chain, table.number, table.insertion, table.residue)
    begins = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(begins)])
