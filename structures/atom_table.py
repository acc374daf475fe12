"""The atoms of one model as a file lists them, before anything is chosen or dropped."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["AtomTable", "Reading", "strings"]

Strings = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class AtomTable:
    """Columns of n rows, in the order of the file.

    Attributes
    ----------
    chain : ndarray of str
        As the authors name it; may be empty.
    part : ndarray of int
        Counts up where the file says that a molecule ends: at TER, or where `label_asym_id` changes.
    number : ndarray of int
        Of the residue.
    insertion, residue, atom, altloc, element : ndarray of str
        Empty where there is none.
    hetero : ndarray of bool
    occupancy, b_factor : ndarray of float
        1 and 0 where the file has none.
    position : ndarray, shape (n, 3)
        Angstrom.
    """

    chain: Strings
    part: NDArray[np.int64]
    number: NDArray[np.int64]
    insertion: Strings
    residue: Strings
    atom: Strings
    altloc: Strings
    element: Strings
    hetero: NDArray[np.bool_]
    occupancy: NDArray[np.float64]
    b_factor: NDArray[np.float64]
    position: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.chain)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "AtomTable":
        return AtomTable(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})

    @property
    def is_ca(self) -> NDArray[np.bool_]:
        """Rows of C-alphas: a calcium ion has the name of one, and is none."""
        return (self.atom == "CA") & ~((self.element == "CA") & self.hetero)


class Reading(NamedTuple):
    """What a file says.

    Attributes
    ----------
    sequences : dict
        Names of all residues of a chain, also of those that were not seen, by the author's name of the chain.
    notes : list of str
        What people should know.
    """

    table: AtomTable
    sequences: dict[str, list[str]]
    notes: list[str]


def strings(values: Sequence[str]) -> Strings:
    """Return an array of strings of whatever length."""
    return np.array(values, dtype=np.str_) if len(values) else np.zeros(0, dtype="U1")
