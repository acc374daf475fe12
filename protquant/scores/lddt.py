"""lDDT on C-alpha atoms: agreement of local distances, without superposition."""

import numpy as np
from biotite.structure import AtomArray, lddt
from numpy.typing import NDArray

from protquant.errors import ProtquantError

__all__ = ["lddt_ca", "lddt_ca_per_residue"]


def lddt_ca(prediction_ca: NDArray[np.floating], reference_ca: NDArray[np.floating]) -> float:
    """Return the local distance difference test on C-alpha atoms over all pairs within 15 angstrom in the reference.

    Parameters
    ----------
    prediction_ca, reference_ca : ndarray, shape (n, 3)
        C-alpha coordinates in angstrom of the same residues, row by row. A residue that is NaN in the reference is
        left out; for one that is NaN only in the prediction, all distances count as wrong.

    Returns
    -------
    float
        Between 0 and 1; mean over all pairs of the fraction of the thresholds 0.5, 1, 2 and 4 angstrom that the
        difference of the distances does not exceed. NaN if the reference has no two residues within 15 angstrom.

    Raises
    ------
    ProtquantError
        If the shapes differ or the reference has no coordinates.

    Notes
    -----
    Mariani et al. 2013, Bioinformatics 29:2722-2728, as computed by biotite. AlphaFold's lDDT-CA averages residues
    instead of pairs, which is the mean of `lddt_ca_per_residue`.
    """
    atoms, prediction, _ = _present(prediction_ca, reference_ca)
    return float(lddt(atoms, prediction))


def lddt_ca_per_residue(prediction_ca: NDArray[np.floating], reference_ca: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return `lddt_ca` over the pairs of each residue, shape (n,); NaN if it is missing in the reference or alone."""
    atoms, prediction, present = _present(prediction_ca, reference_ca)
    scores = np.full(len(present), np.nan)
    scores[present] = lddt(atoms, prediction, aggregation="atom")
    return scores


def _present(
    prediction_ca: NDArray[np.floating], reference_ca: NDArray[np.floating]
) -> tuple[AtomArray, NDArray[np.float32], NDArray[np.bool_]]:
    """Return the reference's present residues for biotite, their predicted coordinates, and the mask of presence."""
    prediction, reference = np.asarray(prediction_ca, np.float32), np.asarray(reference_ca, np.float32)
    if prediction.shape != reference.shape or prediction.ndim != 2 or prediction.shape[1] != 3:
        raise ProtquantError(
            f"coordinates of shapes {prediction.shape} and {reference.shape} cannot be compared: both must be (n, 3), "
            "row by row the same residue. Use match_residues to pair structures that differ in residues."
        )
    present = np.asarray(np.isfinite(reference).all(axis=1))
    if not present.any():
        raise ProtquantError("no residue of the reference has coordinates, so there is nothing to compare with.")
    atoms = AtomArray(int(present.sum()))
    atoms.coord = reference[present]
    atoms.res_id = np.arange(len(atoms))  # each atom is a residue of its own
    return atoms, prediction[present], present
