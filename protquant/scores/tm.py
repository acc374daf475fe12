"""TM-score with fixed residue correspondence."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protquant.errors import ProtquantError
from protquant.scores.superposition import paired_coordinates
from protquant.scores.superposition_search import search_superpositions

__all__ = ["TMResult", "checked_length", "tm_distance_scale", "tm_score"]


@dataclass(frozen=True, eq=False)
class TMResult:
    """A TM-score and the motion ``prediction @ rotation.T + translation`` that gives it.

    Parameters
    ----------
    score : float
        Between 0 and 1; above 0.5 two structures have about the same fold.
    rotation : ndarray, shape (3, 3)
    translation : ndarray, shape (3,)
        In angstrom.
    """

    score: float
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]


def tm_distance_scale(reference_length: int) -> float:
    """Return d0 in angstrom, at least 0.5, for the length of the reference (Zhang & Skolnick 2004, as in TMscore)."""
    return float(max(1.24 * np.cbrt(reference_length - 15) - 1.8, 0.5))


def tm_score(
    prediction_ca: NDArray[np.floating], reference_ca: NDArray[np.floating], reference_length: int | None = None
) -> TMResult:
    """Return the TM-score of a prediction, by the superposition search of the TMscore program.

    Parameters
    ----------
    prediction_ca, reference_ca : ndarray, shape (n, 3)
        C-alpha coordinates in angstrom of the same residues, row by row; rows with NaN in either are left out.
    reference_length : int, optional
        Number of residues of the whole reference, which determines d0 and normalizes the score. By default the number
        of rows of `reference_ca` that are not NaN.

    Returns
    -------
    TMResult

    Raises
    ------
    ProtquantError
        If the shapes differ, no row is left, or `reference_length` is less than the number of paired residues.

    Notes
    -----
    Zhang & Skolnick 2004, Proteins 57:702-710. Mirror images are never superimposed.
    """
    prediction, reference = paired_coordinates(prediction_ca, reference_ca)
    length = checked_length(reference_ca, len(prediction), reference_length)
    found = search_superpositions(prediction, reference, tm_distance_scale(length))
    return TMResult(found.tm_sum / length, found.superposition.rotation, found.superposition.translation)


def checked_length(reference_ca: NDArray[np.floating], paired: int, reference_length: int | None) -> int:
    """Return the length for normalization: `reference_length`, or by default the number of present residues.

    Raises
    ------
    ProtquantError
        If `reference_length` is less than the number of paired residues.
    """
    if reference_length is None:
        return int(np.isfinite(reference_ca).all(axis=1).sum())
    if reference_length < paired:
        raise ProtquantError(
            f"reference_length is {reference_length} but {paired} residues are paired: "
            "give the number of residues of the whole reference."
        )
    return reference_length
