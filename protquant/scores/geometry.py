"""Plausibility of a structure, regardless of its confidence: distances in the backbone, and clashing atoms.

References
----------
.. [1] J. Jumper et al. 2021, "Highly accurate protein structure prediction with AlphaFold", Nature 596, 583, supplement
   1.9.11: two non-bonded atoms of different residues clash if their distance is less than the sum of their van der
   Waals radii minus 1.5 angstrom.
.. [2] C. J. Williams et al. 2018, "MolProbity: More and better reference data for improved all-atom structure
   validation", Protein Science 27, 293: cis peptides before proline are counted separately, because one in twenty is
   cis; other cis peptides are very rare.
.. [3] A. Bondi 1964, "van der Waals Volumes and Radii", J. Phys. Chem. 68, 441.
"""

from dataclasses import asdict, dataclass

import numpy as np
from biotite.structure import AtomArray, get_residue_starts, spread_residue_wise
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from protquant.errors import ProtquantError

__all__ = ["MOST_CA_OUTLIERS", "MOST_CLASHES", "Geometry", "measure_geometry"]

TRANS = (3.6, 4.0)
"""Range of the C-alpha distance across a trans peptide, in angstrom; the ideal value is 3.80."""

CIS = (2.7, 3.2)
"""Range of the C-alpha distance across a cis peptide, in angstrom; the ideal value is 2.95."""

MOST_CA_OUTLIERS = 0.05
"""Fraction of outliers above which there is a warning; the 50 shipped experimental chains have at most 0.013."""

MOST_CLASHES = 5.0
"""Clashes per 1,000 atoms above which there is a warning; the shipped chains have none."""

_RADII = {"C": 1.7, "N": 1.55, "O": 1.52, "S": 1.8}  # angstrom [3]_
_TOLERANCE = 1.5


@dataclass(frozen=True)
class Geometry:
    """Geometry of one structure.

    Attributes
    ----------
    ca_outliers : float
        Fraction, 0-1, of neighbors in a chain whose C-alphas are not 3.6 to 4.0 angstrom apart. Cis peptides are
        counted, except before proline. NaN if no residue has a neighbor.
    cis_prolines : int
        Number of cis peptides before proline: C-alphas 2.7 to 3.2 angstrom apart.
    clashes : float
        Pairs of clashing heavy atoms [1]_ per 1,000 atoms.
    """

    ca_outliers: float
    cis_prolines: int
    clashes: float

    def row(self) -> dict[str, float]:
        """Return the measures by name."""
        return asdict(self)

    def warnings(self) -> list[str]:
        """Return a phrase for each fault; empty for a plausible structure."""
        found = []
        if self.ca_outliers > MOST_CA_OUTLIERS:
            share = f"{self.ca_outliers:.0%} of neighboring C-alphas are not {TRANS[0]} to {TRANS[1]} angstrom apart"
            found.append(f"distorted backbone, {share}")
        if self.clashes > MOST_CLASHES:
            found.append(f"clashing atoms, {self.clashes:.0f} pairs per 1,000")
        return found


def measure_geometry(atoms: AtomArray) -> Geometry:
    """Measure a structure of protein residues without hydrogens.

    Parameters
    ----------
    atoms : AtomArray
        Atoms, residue by residue. Residues of a chain with consecutive numbers are neighbors.

    Raises
    ------
    ProtquantError
        If a coordinate is not finite.
    """
    broken = int((~np.isfinite(atoms.coord).all(axis=-1)).sum())
    if broken:
        raise ProtquantError(f"{broken} of {atoms.array_length()} atoms have coordinates that are not finite numbers")
    distances, before_proline = _neighbor_distances(atoms)
    is_cis = before_proline & (distances >= CIS[0]) & (distances <= CIS[1])
    is_outlier = ~is_cis & ((distances < TRANS[0]) | (distances > TRANS[1]))
    return Geometry(
        ca_outliers=float(is_outlier.mean()) if len(distances) else float("nan"),
        cis_prolines=int(is_cis.sum()),
        clashes=1000 * _count_clashes(atoms) / max(1, atoms.array_length()),
    )


def _neighbor_distances(atoms: AtomArray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return C-alpha distances of neighbors in angstrom, and whether the second residue is proline; shapes (n,)."""
    ca = atoms[atoms.atom_name == "CA"]
    neighbors = (ca.chain_id[1:] == ca.chain_id[:-1]) & (np.diff(ca.res_id) == 1)
    distances = np.linalg.norm(np.diff(ca.coord.astype(np.float64), axis=0), axis=-1)
    return distances[neighbors], (ca.res_name[1:] == "PRO")[neighbors]


def _count_clashes(atoms: AtomArray) -> int:
    radii = np.array([_RADII.get(element, _RADII["C"]) for element in atoms.element])
    nearest = 2 * max(_RADII.values()) - _TOLERANCE
    pairs = cKDTree(atoms.coord.astype(np.float64)).query_pairs(nearest, output_type="ndarray")
    first, second = pairs.T
    starts = get_residue_starts(atoms)
    residue = spread_residue_wise(atoms, np.arange(len(starts)))
    apart = np.linalg.norm(atoms.coord[first].astype(np.float64) - atoms.coord[second], axis=-1)
    clashes = (residue[first] != residue[second]) & (apart < radii[first] + radii[second] - _TOLERANCE)
    names = atoms.atom_name
    # `first` is the smaller index, so `second` belongs to the same or a later residue.
    follows = (residue[second] - residue[first] == 1) & (atoms.chain_id[first] == atoms.chain_id[second])
    is_peptide = follows & (names[first] == "C") & (names[second] == "N")
    is_disulfide = (names[first] == "SG") & (names[second] == "SG")
    return int((clashes & ~is_peptide & ~is_disulfide).sum())
