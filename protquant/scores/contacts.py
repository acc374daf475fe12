"""Precision of predicted contacts, and how far two predictions of contacts differ."""

import numpy as np
from numpy.typing import NDArray

from protquant.errors import ProtquantError

__all__ = [
    "CONTACT_BANDS",
    "CONTACT_DEPTHS",
    "CONTACT_DISTANCE",
    "cb_distances",
    "contact_precision",
    "probability_drift",
]

CONTACT_DISTANCE = 8.0
"""Angstrom between C-betas, below which two residues are in contact."""

CONTACT_BANDS: dict[str, tuple[int, int | None]] = {
    "long": (24, None),
    "medium": (12, 23),
    "short": (6, 11),
    "local": (3, 5),
}
"""Least and largest separation along the sequence, both included."""

CONTACT_DEPTHS: dict[str, int] = {"P@L": 1, "P@L/2": 2, "P@L/5": 5}
"""How many of the most probable pairs count: the number of residues divided by this."""

DRIFT_SEPARATION = 6
"""Residues nearer along the sequence touch anyway, so they are left out of the drift."""


def cb_distances(cb: NDArray[np.floating]) -> NDArray[np.float64]:
    """Distances in angstrom, shape (L, L), of C-betas, shape (L, 3); NaN where either residue is missing."""
    coordinates = np.asarray(cb, dtype=np.float64)
    return np.asarray(np.linalg.norm(coordinates[:, None] - coordinates[None, :], axis=-1))


def contact_precision(probabilities: NDArray[np.floating], distances: NDArray[np.floating]) -> dict[str, float]:
    """Precision of the most probable contacts, by separation along the sequence.

    Parameters
    ----------
    probabilities : ndarray, shape (L, L)
        Predicted probability, or any score that orders the pairs; both triangles are averaged.
    distances : ndarray, shape (L, L)
        C-beta distances in the reference in angstrom (`cb_distances`); pairs that are NaN are left out.

    Returns
    -------
    dict
        ``"long P@L"``, ``"long P@L/2"``, ``"long P@L/5"`` and so on for `CONTACT_BANDS`, each between 0 and 1. The L
        of P@L is the number of residues present in the reference. Where a band has fewer pairs than asked for all
        of them count; one without any pair is NaN.

    Raises
    ------
    ProtquantError
        If the shapes do not fit or a probability is NaN.

    Notes
    -----
    Pairs of equal probability are taken in order of their residues, so that the result is deterministic.
    """
    scores = _square(probabilities, "probabilities")
    distance = _square(distances, "distances")
    if scores.shape != distance.shape:
        raise ProtquantError(
            f"probabilities of {len(scores)} residues and distances of {len(distance)}: both must be of the same "
            "sequence, with NaN distances for residues missing in the reference."
        )
    length = int(np.isfinite(distance).any(axis=1).sum())
    first, second = np.triu_indices(len(scores), k=1)
    present = np.isfinite(distance[first, second])
    first, second = first[present], second[present]
    score = (scores[first, second] + scores[second, first]) / 2
    in_contact = distance[first, second] < CONTACT_DISTANCE
    separation = second - first

    precisions: dict[str, float] = {}
    for band, (least, most) in CONTACT_BANDS.items():
        in_band = (separation >= least) & (separation <= (most if most is not None else len(scores)))
        ranked = in_contact[in_band][np.argsort(-score[in_band], kind="stable")]
        for depth, divisor in CONTACT_DEPTHS.items():
            top = ranked[: max(1, length // divisor)]
            precisions[f"{band} {depth}"] = float(top.mean()) if len(top) else float("nan")
    return precisions


def probability_drift(
    probabilities: NDArray[np.floating],
    other: NDArray[np.floating],
    min_separation: int = DRIFT_SEPARATION,
) -> float:
    """Mean absolute change of the contact probabilities over pairs.

    Parameters
    ----------
    probabilities, other : ndarray, shape (L, L)
        Two predictions for the same sequence.
    min_separation : int
        Least ``|i - j|`` of the pairs that count; 6 by default, as for contacts of short range and longer.

    Returns
    -------
    float
        NaN if the sequence is too short to have such a pair.

    Raises
    ------
    ProtquantError
        If the shapes differ or a probability is NaN.
    """
    a, b = _square(probabilities, "probabilities"), _square(other, "probabilities")
    if a.shape != b.shape:
        raise ProtquantError(f"contact maps of {len(a)} and {len(b)} residues: both must be of the same sequence.")
    first, second = np.triu_indices(len(a), k=min_separation)
    change = (np.abs(a - b)[first, second] + np.abs(a - b)[second, first]) / 2
    return float(change.mean()) if len(change) else float("nan")


def _square(values: NDArray[np.floating], what: str) -> NDArray[np.float64]:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ProtquantError(f"{what} of shape {matrix.shape}: must be (L, L), a value per pair of residues.")
    if what == "probabilities" and np.isnan(matrix).any():
        raise ProtquantError("a contact probability is NaN: the prediction is broken, so it cannot be ranked.")
    return matrix
