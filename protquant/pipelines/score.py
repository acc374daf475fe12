"""Score one structure file against another."""

from pathlib import Path
from typing import Any

from protquant.scores import score_structures
from protquant.structures import load_structure

__all__ = ["score"]


def score(prediction: Path, reference: Path) -> dict[str, Any]:
    """TM-score, GDT-TS, lDDT-CA and CA-RMSD of a predicted structure; residues are matched by sequence.

    Parameters
    ----------
    prediction, reference : Path
        PDB or mmCIF, plain or gzipped. TM-score and GDT-TS are normalized by the reference's length.

    Returns
    -------
    dict
        `tm_score gdt_ts lddt_ca rmsd_ca n_aligned reference_length`.

    Raises
    ------
    ProtquantError
        If a file cannot be read, or the sequences cannot be aligned.
    """
    return score_structures(load_structure(prediction), load_structure(reference)).to_dict()
