"""Least-squares superposition of paired points, for one or many pairs of point sets."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protquant.errors import ProtquantError

__all__ = ["Superposition", "paired_coordinates", "rotations_from_covariances", "superimpose"]


class Superposition(NamedTuple):
    """A rigid motion: ``points @ rotation.T + translation``."""

    rotation: NDArray[np.float64]
    """Proper rotation, shape (3, 3)."""
    translation: NDArray[np.float64]
    """Translation in angstrom, shape (3,)."""

    def apply(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the moved points, shape (..., 3)."""
        moved: NDArray[np.float64] = points @ self.rotation.T + self.translation
        return moved


def rotations_from_covariances(covariances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotations that fit centered points p onto q best, given the sums of their outer products.

    Parameters
    ----------
    covariances : ndarray, shape (..., 3, 3)
        Sum over the points of ``outer(p, q)``.

    Returns
    -------
    ndarray, shape (..., 3, 3)
        Proper rotations R (determinant +1, never a reflection) that minimize the sum of ``|R p - q|^2``.

    Notes
    -----
    Kabsch 1978, by singular value decomposition: if the unconstrained optimum is a reflection, the axis of the smallest
    singular value is flipped.
    """
    u, _, vt = np.linalg.svd(covariances)
    handedness = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    flipped = u.copy()
    flipped[..., :, 2] *= handedness[..., None]
    return np.asarray(np.swapaxes(flipped @ vt, -1, -2))


def superimpose(mobile: NDArray[np.float64], fixed: NDArray[np.float64]) -> Superposition:
    """Return the rigid motion of `mobile` onto `fixed`, both of shape (n, 3), with the smallest RMSD."""
    mobile_center, fixed_center = mobile.mean(axis=0), fixed.mean(axis=0)
    rotation = rotations_from_covariances((mobile - mobile_center).T @ (fixed - fixed_center))
    return Superposition(rotation, fixed_center - rotation @ mobile_center)


def paired_coordinates(
    prediction_ca: NDArray[np.floating], reference_ca: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Check two paired arrays of shape (n, 3), and return them without rows that are NaN in either.

    Raises
    ------
    ProtquantError
        If the shapes differ or are not (n, 3), or no row is left.
    """
    prediction = np.asarray(prediction_ca, dtype=np.float64)
    reference = np.asarray(reference_ca, dtype=np.float64)
    if prediction.shape != reference.shape or prediction.ndim != 2 or prediction.shape[1] != 3:
        raise ProtquantError(
            f"coordinates of shapes {prediction.shape} and {reference.shape} cannot be compared: both must be (n, 3), "
            "row by row the same residue. Use match_residues to pair structures that differ in residues."
        )
    present = np.isfinite(prediction).all(axis=1) & np.isfinite(reference).all(axis=1)
    if not present.any():
        raise ProtquantError("no residue has coordinates in both structures, so they cannot be compared.")
    return prediction[present], reference[present]
