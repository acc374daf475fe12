"""All scores of a predicted structure against a reference."""

from dataclasses import asdict, dataclass

import numpy as np
from biotite.structure import AtomArray
from numpy.typing import NDArray

from protquant.scores.lddt import lddt_ca
from protquant.scores.match import Pairing, as_reference, chain_pairings, pair_residues
from protquant.scores.rmsd import rmsd_ca
from protquant.scores.superposition import Superposition, paired_coordinates
from protquant.scores.superposition_search import GDT_DISTANCES, SearchResult, search_superpositions
from protquant.scores.tm import tm_distance_scale
from protquant.structures import Reference

__all__ = ["Comparison", "StructureScores", "compare_structures", "score_structures"]

SEARCHED_PAIRINGS = 4
"""Number of orders of identical chains, by increasing RMSD, for which the TM-score is computed."""


@dataclass(frozen=True)
class StructureScores:
    """Scores of one prediction.

    Parameters
    ----------
    tm_score : float
        0-1, normalized by the reference length.
    gdt_ts : float
        0-1, normalized by the reference length.
    lddt_ca : float
        0-1, over the reference's residues; distances to residues that the prediction lacks count as wrong.
    rmsd_ca : float
        In angstrom, over the aligned residues.
    n_aligned : int
        Number of residues present in both.
    reference_length : int
        Number of residues of the reference with a C-alpha, over all chains.
    """

    tm_score: float
    gdt_ts: float
    lddt_ca: float
    rmsd_ca: float
    n_aligned: int
    reference_length: int

    def to_dict(self) -> dict[str, float | int]:
        """Return the scores by name, in the order above."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A prediction that is superimposed on a reference.

    Attributes
    ----------
    chains : tuple of (str, str)
        Names of paired chains in the prediction and in the reference.
    unmatched, unmatched_in_reference : tuple of str
        Names of the chains that are not paired.
    superposition : Superposition
        Motion of the prediction that gives the TM-score.
    ca : ndarray, shape (L, 3)
        C-alphas of the prediction, in the order of the reference's residues; NaN for residues that it lacks.
    """

    scores: StructureScores
    chains: tuple[tuple[str, str], ...]
    unmatched: tuple[str, ...]
    unmatched_in_reference: tuple[str, ...]
    superposition: Superposition
    ca: NDArray[np.float64]


def score_structures(prediction: AtomArray | Reference, reference: AtomArray | Reference) -> StructureScores:
    """Score a prediction against a reference, residues paired by sequence.

    Parameters
    ----------
    prediction, reference : AtomArray or Reference
        One or several chains each. For a complex with several copies of a chain, the order of copies with the largest
        TM-score counts, among the four orders of smallest RMSD.

    Returns
    -------
    StructureScores

    Raises
    ------
    ProtquantError
        If no chain of the prediction is at least 30 % identical with a chain of the reference, or no residue has
        its C-alpha in both.
    """
    return compare_structures(prediction, reference).scores


def compare_structures(prediction: AtomArray | Reference, reference: AtomArray | Reference) -> Comparison:
    """Return the scores, the pairs of chains and the superposition of a prediction; see `score_structures`."""
    predicted, referred = as_reference(prediction), as_reference(reference)
    length = int(np.isfinite(referred.ca).all(axis=1).sum())
    pairings = chain_pairings(predicted, referred)
    candidates = [(_on_reference(predicted, referred, pairing), pairing) for pairing in pairings]
    if len(candidates) > 1:
        candidates.sort(key=lambda candidate: rmsd_ca(candidate[0], referred.ca))
    searched = [(_search(ca, referred.ca, length), ca, pairing) for ca, pairing in candidates[:SEARCHED_PAIRINGS]]
    found, ca, pairing = max(searched, key=lambda item: item[0].tm_sum)
    scores = StructureScores(
        tm_score=found.tm_sum / length,
        gdt_ts=sum(found.gdt_counts) / (len(GDT_DISTANCES) * length),
        lddt_ca=lddt_ca(ca, referred.ca),
        rmsd_ca=rmsd_ca(ca, referred.ca),
        n_aligned=len(paired_coordinates(ca, referred.ca)[0]),
        reference_length=length,
    )
    ours, theirs = predicted.chain_ids, referred.chain_ids
    return Comparison(
        scores,
        tuple((ours[i], theirs[j]) for i, j in pairing),
        tuple(name for i, name in enumerate(ours) if i not in {pair[0] for pair in pairing}),
        tuple(name for j, name in enumerate(theirs) if j not in {pair[1] for pair in pairing}),
        found.superposition,
        ca,
    )


def _on_reference(prediction: Reference, reference: Reference, pairing: Pairing) -> NDArray[np.float64]:
    """Return predicted C-alphas in the order of the reference's residues, shape (L, 3); NaN for missing residues."""
    ours, theirs = pair_residues(prediction, reference, pairing)
    ca = np.full((len(reference), 3), np.nan)
    ca[theirs] = prediction.ca[ours]
    return ca


def _search(prediction_ca: NDArray[np.float64], reference_ca: NDArray[np.float64], length: int) -> SearchResult:
    return search_superpositions(*paired_coordinates(prediction_ca, reference_ca), tm_distance_scale(length))
