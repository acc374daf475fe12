"""Which atoms are of one chain: two molecules that a file gives one name are two chains."""

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
        """Whether a further part of the file, with these residues, is of this molecule."""
        if self.last is None:
            return True
        if residues[0][0] < self.last or not self.residues.isdisjoint(residues):
            return False
        # The next number says that nothing is missing between them, so that they must be bonded.
        return residues[0][0] != self.last + 1 or bool(np.linalg.norm(begin - self.end) <= MAX_CA_DISTANCE)


def name_molecules(table: AtomTable) -> tuple[NDArray[np.str_], list[str]]:
    """Give each molecule a name of its own.

    Parts that the file separates (by TER, or by `label_asym_id`) under one name of a chain are one molecule where the
    numbers of residues go on: a chain may be interrupted. Where numbers begin again, or residues with successive
    numbers are not bonded, the second part is another molecule, and gets a number behind its name.

    Returns
    -------
    ndarray of str
        Name for each row.
    list of str
        What was named anew, for people.
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
                f"chain {chain!r} is the name of several molecules: that which begins at residue {residues[0][0]}"
                f"{residues[0][1]} is called {molecule.name!r} here"
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
    """Order of rows that puts modified residues of a chain, which a file may list behind it, where their numbers say.

    Parameters
    ----------
    table : AtomTable
        The rows of a residue together.
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
            # Only where it is listed behind a residue that it precedes.
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
    """Number of the residue of each row, from 0, ascending."""
    columns = (table.chain, table.number, table.insertion, table.residue)
    begins = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(begins)])
