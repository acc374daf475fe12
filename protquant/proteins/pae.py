"""Writing the predicted aligned error as the AlphaFold Protein Structure Database does since July 2022."""

import json
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protquant.errors import ProtquantError
from protquant.proteins.outputs import atomic_write
from protquant.proteins.prediction import Prediction

__all__ = ["checked_pae", "write_pae"]


def write_pae(prediction: Prediction, path: str | os.PathLike[str]) -> Path:
    """Write the predicted aligned error as JSON.

    A list with one object: `predicted_aligned_error`, a square list of lists of whole angstroms (row i: residue i is
    superimposed, column j: the error of residue j), and `max_predicted_aligned_error`.

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
    document = [
        {
            "predicted_aligned_error": np.rint(checked_pae(prediction, path)).astype(int).tolist(),
            "max_predicted_aligned_error": float(prediction.max_pae),
        }
    ]
    return atomic_write(path, json.dumps(document, separators=(",", ":")))


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
