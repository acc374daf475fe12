"""Which atoms are of one chain: two molecules that a file gives one name are two chains."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from protquant.structures.atom_table import AtomTable, strings
from protquant.structures.protein_atoms import MAX_CA_DISTANCE

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
    notes = []
    starts = np.flatnonzero(np.diff(table.part, prepend=-1) | (table.chain[:] != np.roll(table.chain, 1)))
    for start, stop in zip(starts, [*starts[1:], len(table)], strict=True):
        chain = str(table.chain[start])
        rows = start + np.flatnonzero((table.is_ca & ~table.hetero)[start:stop])
        residues = list(zip(table.number[rows].tolist(), table.insertion[rows].tolist(), strict=True))
        molecule = latest.setdefault(chain, _Molecule(chain))
        if residues and not molecule.goes_on(residues, table.position[rows[0]]):
            molecule = latest[chain] = _Molecule(_free(chain, taken))
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


def _free(chain: str, taken: set[str]) -> str:
    return next(name for k in range(2, len(taken) + 3) if (name := f"{chain}{k}") not in taken)


def in_sequence(table: AtomTable) -> NDArray[np.int64]:
    """Order of rows that puts modified residues of a chain, which a file may list behind it, where their numbers say.

    Parameters
    ----------
    table : AtomTable
        The rows of a residue together.
    """
    alphas = np.flatnonzero(table.is_ca)
    place = table.number + np.array(
        [(ord(code) - ord("A") + 1) / 100 if code else 0 for code in table.insertion.tolist()]
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
            rows = _rows_of_residue(table, int(alpha))
            within = (place[alpha] - table.number.min()) * 1e-6 + np.arange(len(rows)) * 1e-9
            if len(before):
                order[rows] = _rows_of_residue(table, int(before.max())).max() + within
            elif np.linalg.norm(table.position[alpha] - table.position[behind.min()]) <= MAX_CA_DISTANCE:
                order[rows] = _rows_of_residue(table, int(behind.min())).min() - 1 + within
    return np.argsort(order, kind="stable").astype(np.int64)


def _rows_of_residue(table: AtomTable, row: int) -> NDArray[np.int64]:
    same = table.chain == table.chain[row]
    for column in (table.number, table.insertion, table.residue):
        same &= column == column[row]
    return np.flatnonzero(same)
