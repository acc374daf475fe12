"""The search of the TMscore program for the superpositions with the largest TM-score and GDT.

The structures are paired residue by residue. The search superimposes each fragment of the chain, from the full length
down to four residues, then the residues that are close after that, and so on until these no longer change. All
superpositions are scored, and the best counts (Zhang & Skolnick 2004). Here all fragments are processed together, as
rows of matrices. A set of residues that was superimposed before is skipped, because it would lead to the same sets.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protquant.scores.superposition import Superposition, rotations_from_covariances

__all__ = ["GDT_DISTANCES", "SearchResult", "search_superpositions"]

GDT_DISTANCES = (1.0, 2.0, 4.0, 8.0)
"""Thresholds of GDT-TS in angstrom (Zemla 2003)."""

MIN_FRAGMENT = 4
MAX_FRAGMENT_LENGTHS = 6
MAX_ITERATIONS = 20
CUTOFF_STEP = 0.5
"""Increment of the cutoff in angstrom, which grows until at least three residues are within it."""
MIN_CLOSE = 3
MAX_CELLS = 2_000_000
"""Largest number of fragments times residues that are processed together; bounds memory at about 100 MB."""


@dataclass(frozen=True)
class SearchResult:
    """Best values over all superpositions of the search.

    Parameters
    ----------
    tm_sum : float
        Largest sum over residues of ``1 / (1 + (d / d0)^2)``.
    superposition : Superposition
        Motion of the prediction onto the reference that gives `tm_sum`.
    gdt_counts : tuple of int
        Largest number of residues within each of `GDT_DISTANCES`, each with its own best superposition.
    """

    tm_sum: float
    superposition: Superposition
    gdt_counts: tuple[int, ...]


def search_superpositions(prediction: NDArray[np.float64], reference: NDArray[np.float64], d0: float) -> SearchResult:
    """Search the superpositions of `prediction` onto `reference`.

    Parameters
    ----------
    prediction, reference : ndarray, shape (n, 3)
        Paired coordinates in angstrom, n >= 1, finite.
    d0 : float
        Distance scale of the TM-score, in angstrom.
    """
    count = len(prediction)
    search = _Search(prediction, reference, d0)
    starts = _fragments(count)
    rows = max(1, MAX_CELLS // count)
    for first in range(0, len(starts), rows):
        search.run(_fragment_masks(starts[first : first + rows], count))
    return SearchResult(search.best_sum, search.best, tuple(int(n) for n in search.gdt_counts))


def _fragments(count: int) -> NDArray[np.int64]:
    """Return start and stop of the initial fragments, shape (fragments, 2): n, n/2, n/4 ... residues, all offsets."""
    shortest = min(MIN_FRAGMENT, count)
    lengths: list[int] = []
    for halvings in range(MAX_FRAGMENT_LENGTHS - 1):
        lengths.append(max(count // 2**halvings, shortest))
        if lengths[-1] == shortest:
            break
    else:
        lengths.append(shortest)
    firsts = [np.arange(count - length + 1) for length in lengths]
    return np.concatenate(
        [np.stack([first, first + length], axis=1) for first, length in zip(firsts, lengths, strict=True)]
    )


def _fragment_masks(fragments: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    positions = np.arange(count)
    return np.asarray((positions >= fragments[:, :1]) & (positions < fragments[:, 1:]))


class _Search:
    """State of one search. Rows (n) are superpositions, columns (l) are residues.

    Sums over a set of residues, and squared distances after a motion, are linear in the 16 products of ``(1, p)`` with
    ``(1, q)``. Each is therefore one matrix product with `features`.
    """

    def __init__(self, prediction: NDArray[np.float64], reference: NDArray[np.float64], d0: float) -> None:
        self.count = len(prediction)
        self.d0 = d0
        # Bounds of the program: otherwise sets of small proteins would hardly grow, and those of large ones cover all.
        self.cutoff = min(max(d0, 4.5), 8.0)
        self.prediction_center = prediction.mean(axis=0)
        self.reference_center = reference.mean(axis=0)
        p, q = prediction - self.prediction_center, reference - self.reference_center
        products = (p[:, :, None] * q[:, None, :]).reshape(self.count, 9)
        self.features = np.concatenate([np.ones((self.count, 1)), p, q, products], axis=1)  # (l, 16)
        self.squares = (p**2).sum(axis=1) + (q**2).sum(axis=1)  # (l,)
        self.visited: set[bytes] = set()
        self.best_sum = -1.0
        self.best = Superposition(np.eye(3), np.zeros(3))
        self.gdt_counts = np.zeros(len(GDT_DISTANCES), dtype=np.int64)

    def run(self, masks: NDArray[np.bool_]) -> None:
        """Superimpose the sets of residues in `masks`, shape (n, l), and update each set until it was seen before."""
        squared = self._superimpose(masks)
        masks = self._unvisited(self._close(squared, self.cutoff - 1.0))
        for _ in range(MAX_ITERATIONS):
            if len(masks) == 0:
                return
            squared = self._superimpose(masks)
            masks = self._unvisited(self._close(squared, self.cutoff + 1.0))

    def _superimpose(self, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Fit each set, score it, store the best; return squared distances in angstrom^2, shape (n, l)."""
        sums = masks.astype(np.float64) @ self.features
        size = sums[:, :1]
        p_mean, q_mean = sums[:, 1:4] / size, sums[:, 4:7] / size
        covariances = sums[:, 7:].reshape(-1, 3, 3) - size[:, :, None] * p_mean[:, :, None] * q_mean[:, None, :]
        rotations = rotations_from_covariances(covariances)
        shifts = q_mean - np.einsum("nij,nj->ni", rotations, p_mean)

        # |R p + t - q|^2 = |p|^2 + |q|^2 + |t|^2 + 2 (R^T t).p - 2 t.q - 2 sum_ij R_ji p_i q_j
        coefficients = np.concatenate(
            [
                (shifts**2).sum(axis=1, keepdims=True),
                2.0 * np.einsum("nji,nj->ni", rotations, shifts),
                -2.0 * shifts,
                -2.0 * np.swapaxes(rotations, 1, 2).reshape(-1, 9),
            ],
            axis=1,
        )
        squared = coefficients @ self.features.T
        squared += self.squares
        np.maximum(squared, 0.0, out=squared)

        tm_sums = (1.0 / (1.0 + squared / self.d0**2)).sum(axis=1)
        best = int(tm_sums.argmax())
        if tm_sums[best] > self.best_sum:
            self.best_sum = float(tm_sums[best])
            rotation = rotations[best]
            translation = shifts[best] + self.reference_center - rotation @ self.prediction_center
            self.best = Superposition(rotation, translation)
        for i, distance in enumerate(GDT_DISTANCES):
            within = int(np.count_nonzero(squared <= distance**2, axis=1).max())
            self.gdt_counts[i] = max(self.gdt_counts[i], within)
        return np.asarray(squared)

    def _close(self, squared: NDArray[np.float64], cutoff: float) -> NDArray[np.bool_]:
        """Return the residues nearer than the cutoff, which grows for each row until it includes three residues."""
        masks = squared < cutoff**2
        if self.count <= MIN_CLOSE:
            return np.asarray(masks[masks.any(axis=1)])
        few = np.flatnonzero(np.count_nonzero(masks, axis=1) < MIN_CLOSE)
        third = np.partition(squared[few], MIN_CLOSE - 1, axis=1)[:, MIN_CLOSE - 1, None]
        steps = np.floor((np.sqrt(third) - cutoff) / CUTOFF_STEP) + 1.0
        grown = (cutoff + CUTOFF_STEP * steps) ** 2
        masks[few] = (squared[few] < grown) | (squared[few] <= third)  # `<= third`, because `grown` may be rounded
        return np.asarray(masks)

    def _unvisited(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the distinct rows that were not superimposed before."""
        packed = np.packbits(masks, axis=1)
        keep: list[int] = []
        for i, row in enumerate(packed):
            key = row.tobytes()
            if key not in self.visited:
                self.visited.add(key)
                keep.append(i)
        return masks[keep]
