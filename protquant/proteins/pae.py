"""Write the predicted aligned error in the JSON format of the AlphaFold database (since July 2022)."""

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

    The file is a list with one object. It has the keys of the AlphaFold database, and the keys of AlphaFold 3 for
    chains.

    =================================  ============================================================================
    `predicted_aligned_error`          L lists of L errors in whole angstroms; row i, column j: the error of residue j
                                       if residue i is superimposed
    `max_predicted_aligned_error`      largest error that the model can express
    `token_chain_ids`                  name of the chain of each residue, as in the structure files
    `token_res_ids`                    number of each residue in its chain
    `ptm`                              predicted TM-score, if known
    `iptm`, `chain_pair_iptm`          complexes only: interface TM-score, and a matrix of the interface TM-scores of
                                       pairs of chains, with the pTM of single chains on the diagonal
    =================================  ============================================================================

    Parameters
    ----------
    prediction : Prediction
        Prediction of L residues, with `pae` of shape (L, L).
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
    """Return the predicted aligned error in angstrom, shape (L, L); `path` is the file that errors name.

    Raises
    ------
    ProtquantError
        If the prediction has no PAE, or the PAE is not finite.
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
