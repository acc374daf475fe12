"""All scores of a predicted structure against a reference at once."""

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
"""Orders of identical chains for which TM-score is computed, those of least RMSD."""


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
        0-1, over the reference's residues; those that the prediction lacks have lost their distances.
    rmsd_ca : float
        Angstrom, over the aligned residues.
    n_aligned : int
        Residues present in both.
    reference_length : int
        Residues of the reference with a C-alpha, all chains.
    """

    tm_score: float
    gdt_ts: float
    lddt_ca: float
    rmsd_ca: float
    n_aligned: int
    reference_length: int

    def to_dict(self) -> dict[str, float | int]:
        """The scores by name, in the order above, as for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A prediction laid on a reference.

    Attributes
    ----------
    chains : tuple of (str, str)
        Names of the chains that were paired, of the prediction and of the reference.
    unmatched, unmatched_in_reference : tuple of str
        Names of the chains that were not.
    superposition : Superposition
        The motion of the prediction that gives the TM-score.
    ca : ndarray, shape (L, 3)
        C-alphas of the prediction in the rows of the reference's residues; NaN where it has none.
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
        One or several chains each. Of a complex with several copies of a chain, the order of copies that gives the
        largest TM-score counts, among the four orders of least RMSD.

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
    """Score a prediction, and tell which chains were paired and how it was moved; see `score_structures`."""
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
    """Predicted C-alphas in the rows of the reference's residues, shape (L, 3); NaN where there is none."""
    ours, theirs = pair_residues(prediction, reference, pairing)
    ca = np.full((len(reference), 3), np.nan)
    ca[theirs] = prediction.ca[ours]
    return ca


def _search(prediction_ca: NDArray[np.float64], reference_ca: NDArray[np.float64], length: int) -> SearchResult:
    return search_superpositions(*paired_coordinates(prediction_ca, reference_ca), tm_distance_scale(length))
