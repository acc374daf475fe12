"""GDT-TS with fixed residue correspondence."""

import numpy as np
from numpy.typing import NDArray

from protquant.scores.superposition import paired_coordinates
from protquant.scores.superposition_search import GDT_DISTANCES, search_superpositions
from protquant.scores.tm import checked_length, tm_distance_scale

__all__ = ["gdt_ts"]


def gdt_ts(
    prediction_ca: NDArray[np.floating], reference_ca: NDArray[np.floating], reference_length: int | None = None
) -> float:
    """Return the global distance test, total score: mean fraction of residues within 1, 2, 4 and 8 angstrom.

    Each of the four fractions is the largest over all superpositions that the TMscore program tries.

    Parameters
    ----------
    prediction_ca, reference_ca, reference_length
        As for `protquant.scores.tm_score`.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ProtquantError
        As `protquant.scores.tm_score`.

    Notes
    -----
    Zemla 2003, Nucleic Acids Research 31:3370-3374, with the search of TMscore, which is less exhaustive than LGA's.
    """
    prediction, reference = paired_coordinates(prediction_ca, reference_ca)
    length = checked_length(reference_ca, len(prediction), reference_length)
    found = search_superpositions(prediction, reference, tm_distance_scale(length))
    return sum(found.gdt_counts) / (len(GDT_DISTANCES) * length)
