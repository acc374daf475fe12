"""Writing the predicted aligned error as the AlphaFold Protein Structure Database does since July 2022."""

import json
import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protquant.errors import ProtquantError
from protquant.files.outputs import atomic_write
from protquant.proteins.atoms import chain_ids
from protquant.proteins.prediction import Prediction

__all__ = ["checked_pae", "write_pae"]


def write_pae(prediction: Prediction, path: str | os.PathLike[str]) -> Path:
    """Write the predicted aligned error as JSON.

    A list with one object, in which readers of the AlphaFold database's files find what they look for, and which says
    in the words of AlphaFold 3's files where the chains are.

    =================================  ============================================================================
    `predicted_aligned_error`          square list of lists of whole angstroms; row i: residue i is superimposed,
                                       column j: the error of residue j
    `max_predicted_aligned_error`      the largest error that the model can express
    `token_chain_ids`                  chain of each row and column, by its name in the structure files
    `token_res_ids`                    number of the residue in its chain
    `ptm`                              predicted TM-score, where there is one
    `iptm`, `chain_pair_iptm`          of a complex: interface TM-score, and a matrix of those of its pairs of
                                       chains, with the pTM of each chain alone on the diagonal
    =================================  ============================================================================

    Parameters
    ----------
    prediction : Prediction
        Of L residues, with `pae` of shape (L, L).
    path : str or PathLike
        The file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ProtquantError
        If the prediction has no PAE, the PAE is not finite, or the file cannot be written.
    """
    pae = checked_pae(prediction, path)
    chains = dict(zip(chain_ids(len(prediction.chains)), map(len, prediction.chains), strict=True))
    document = {
        "predicted_aligned_error": np.rint(pae).astype(int).tolist(),
        "max_predicted_aligned_error": float(prediction.max_pae),
        "token_chain_ids": [chain for chain, length in chains.items() for _ in range(length)],
        "token_res_ids": [number for length in chains.values() for number in range(1, length + 1)],
    }
    for name, value in (("ptm", prediction.ptm), ("iptm", prediction.iptm)):
        if math.isfinite(value):
            document[name] = round(float(value), 4)
    if prediction.chain_pair_iptm is not None:
        document["chain_pair_iptm"] = [
            [round(value, 4) for value in row] for row in prediction.chain_pair_iptm.tolist()
        ]
    return atomic_write(path, json.dumps([document], separators=(",", ":")))


def checked_pae(prediction: Prediction, path: str | os.PathLike[str]) -> NDArray[np.floating]:
    """Return the predicted aligned error that is to be written to a file, of shape (L, L), in angstrom.

    Raises
    ------
    ProtquantError
        If the prediction has none, or it is not finite.
    """
    if prediction.pae is None:
        raise ProtquantError(
            f"{path}: {prediction.name} has no predicted aligned error. Fold it with a model that has a PAE head."
        )
    if not np.isfinite(prediction.pae).all():
        raise ProtquantError(
            f"{path}: the predicted aligned error of {prediction.name} is not finite. "
            "The model overflowed: fold with --dtype float32, or with a recipe that keeps more bits."
        )
    return prediction.pae
