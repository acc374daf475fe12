"""Precision of predicted contacts, and difference between two contact predictions."""

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
"""Distance of C-betas in angstrom below which two residues are in contact."""

CONTACT_BANDS: dict[str, tuple[int, int | None]] = {
    "long": (24, None),
    "medium": (12, 23),
    "short": (6, 11),
    "local": (3, 5),
}
"""Smallest and largest separation along the sequence, both included."""

CONTACT_DEPTHS: dict[str, int] = {"P@L": 1, "P@L/2": 2, "P@L/5": 5}
"""Divisor k of P@L/k: the precision is taken over the L/k most probable pairs."""

DRIFT_SEPARATION = 6
"""Smallest separation of pairs in the drift; closer residues are nearly always in contact."""


def cb_distances(cb: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return distances of C-betas in angstrom, shape (L, L), from `cb` of shape (L, 3); NaN for missing residues."""
    coordinates = np.asarray(cb, dtype=np.float64)
    return np.asarray(np.linalg.norm(coordinates[:, None] - coordinates[None, :], axis=-1))


def contact_precision(probabilities: NDArray[np.floating], distances: NDArray[np.floating]) -> dict[str, float]:
    """Return the precision of the most probable contacts, by separation along the sequence.

    Parameters
    ----------
    probabilities : ndarray, shape (L, L)
        Predicted probability, or any score that orders the pairs; both triangles are averaged.
    distances : ndarray, shape (L, L)
        C-beta distances in the reference in angstrom (`cb_distances`); pairs that are NaN are left out.

    Returns
    -------
    dict
        ``"long P@L"``, ``"long P@L/2"``, ``"long P@L/5"`` and so on for `CONTACT_BANDS`, each between 0 and 1. L is the
        number of residues present in the reference. If a band has fewer pairs, all of them count; a band without pairs
        has NaN.

    Raises
    ------
    ProtquantError
        If the shapes do not fit or a probability is NaN.

    Notes
    -----
    Pairs of equal probability are sorted by their residues, so that the result is deterministic.
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
    """Return the mean absolute difference of contact probabilities over pairs.

    Parameters
    ----------
    probabilities, other : ndarray, shape (L, L)
        Two predictions for the same sequence.
    min_separation : int
        Smallest ``|i - j|`` of the pairs that count; by default 6, the lower bound of short-range contacts.

    Returns
    -------
    float
        Between 0 and 1; NaN if the sequence is too short for such a pair.

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
