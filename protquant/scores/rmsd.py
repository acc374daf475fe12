"""Root mean square deviation after superposition."""

import numpy as np
from numpy.typing import NDArray

from protquant.scores.superposition import paired_coordinates, superimpose

__all__ = ["rmsd_ca"]


def rmsd_ca(prediction_ca: NDArray[np.floating], reference_ca: NDArray[np.floating]) -> float:
    """Return the smallest C-alpha RMSD in angstrom over all rigid motions.

    Parameters
    ----------
    prediction_ca, reference_ca : ndarray, shape (n, 3)
        C-alpha coordinates in angstrom of the same residues, row by row; rows with NaN in either are left out.

    Raises
    ------
    ProtquantError
        If the shapes differ or no row is left.
    """
    prediction, reference = paired_coordinates(prediction_ca, reference_ca)
    moved = superimpose(prediction, reference).apply(prediction)
    return float(np.sqrt(((moved - reference) ** 2).sum(axis=1).mean()))
