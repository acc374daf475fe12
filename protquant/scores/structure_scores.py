"""All scores of a predicted structure against a reference at once."""

from dataclasses import asdict, dataclass

import numpy as np
from biotite.structure import AtomArray
from numpy.typing import NDArray

from protquant.scores.lddt import lddt_ca
from protquant.scores.match import Pairing, as_reference, chain_pairings, pair_residues
from protquant.scores.rmsd import rmsd_ca
from protquant.scores.superposition import paired_coordinates
from protquant.scores.superposition_search import GDT_DISTANCES, SearchResult, search_superpositions
from protquant.scores.tm import tm_distance_scale
from protquant.structures import Reference

__all__ = ["StructureScores", "score_structures"]

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
    predicted, referred = as_reference(prediction), as_reference(reference)
    length = int(np.isfinite(referred.ca).all(axis=1).sum())
    pairings = chain_pairings(predicted, referred)
    candidates = [_on_reference(predicted, referred, pairing) for pairing in pairings]
    if len(candidates) > 1:
        candidates.sort(key=lambda ca: rmsd_ca(ca, referred.ca))
    searched = [(_search(ca, referred.ca, length), ca) for ca in candidates[:SEARCHED_PAIRINGS]]
    found, ca = max(searched, key=lambda item: item[0].tm_sum)
    return StructureScores(
        tm_score=found.tm_sum / length,
        gdt_ts=sum(found.gdt_counts) / (len(GDT_DISTANCES) * length),
        lddt_ca=lddt_ca(ca, referred.ca),
        rmsd_ca=rmsd_ca(ca, referred.ca),
        n_aligned=len(paired_coordinates(ca, referred.ca)[0]),
        reference_length=length,
    )


def _on_reference(prediction: Reference, reference: Reference, pairing: Pairing) -> NDArray[np.float64]:
    """Predicted C-alphas in the rows of the reference's residues, shape (L, 3); NaN where there is none."""
    ours, theirs = pair_residues(prediction, reference, pairing)
    ca = np.full((len(reference), 3), np.nan)
    ca[theirs] = prediction.ca[ours]
    return ca


def _search(prediction_ca: NDArray[np.float64], reference_ca: NDArray[np.float64], length: int) -> SearchResult:
    return search_superpositions(*paired_coordinates(prediction_ca, reference_ca), tm_distance_scale(length))
