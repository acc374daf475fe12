"""The atoms of one model in a file, before any selection."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["AtomTable", "Reading", "strings"]

Strings = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class AtomTable:
    """Table of n atoms, in the order of the file.

    Attributes
    ----------
    chain : ndarray of str
        Author's name of the chain; may be empty.
    part : ndarray of int
        Number that increases at each end of a molecule: at TER, or where `label_asym_id` changes.
    number : ndarray of int
        Number of the residue.
    insertion, residue, atom, altloc, element : ndarray of str
        Insertion code, residue name, atom name, alternate location and element; empty if missing.
    hetero : ndarray of bool
    occupancy, b_factor : ndarray of float
        By default 1 and 0, if the file has none.
    position : ndarray, shape (n, 3)
        Coordinates in angstrom.
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
        """Whether each row is a C-alpha; a calcium ion, which has the same name, is not."""
        return (self.atom == "CA") & ~((self.element == "CA") & self.hetero)


class Reading(NamedTuple):
    """Content of a structure file.

    Attributes
    ----------
    sequences : dict
        Names of all residues of each chain, including unresolved ones, by the author's name of the chain.
    notes : list of str
        Remarks for the user.
    """

    table: AtomTable
    sequences: dict[str, list[str]]
    notes: list[str]


def strings(values: Sequence[str]) -> Strings:
    """Return an array of strings, wide enough for the longest."""
    return np.array(values, dtype=np.str_) if len(values) else np.zeros(0, dtype="U1")
