"""Agreement of the predicted lDDT (pLDDT) with the real lDDT."""

import numpy as np
from numpy.typing import NDArray

from protquant.errors import ProtquantError

__all__ = ["plddt_correlation", "plddt_error"]


def plddt_error(plddt: NDArray[np.floating], lddt: NDArray[np.floating]) -> float:
    """Return the mean absolute difference between pLDDT and 100 times the real lDDT, over residues.

    Parameters
    ----------
    plddt : ndarray, shape (n,)
        Predicted lDDT, 0-100.
    lddt : ndarray, shape (n,)
        Real lDDT, 0-1, as from `lddt_ca_per_residue`; residues with NaN are left out.

    Returns
    -------
    float
        Mean difference, 0-100; NaN if no residue is left.

    Raises
    ------
    ProtquantError
        If the shapes differ or the values are out of range.
    """
    predicted, real = _paired(plddt, lddt)
    return float(np.abs(predicted - 100.0 * real).mean()) if len(real) else float("nan")


def plddt_correlation(plddt: NDArray[np.floating], lddt: NDArray[np.floating]) -> float:
    """Return the Pearson correlation of pLDDT with the real lDDT, over residues.

    Parameters and errors as for `plddt_error`; NaN if fewer than two residues are left or one of the two is constant.
    """
    predicted, real = _paired(plddt, lddt)
    if len(real) < 2 or np.ptp(predicted) == 0 or np.ptp(real) == 0:
        return float("nan")
    return float(np.corrcoef(predicted, real)[0, 1])


def _paired(plddt: NDArray[np.floating], lddt: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    predicted, real = np.asarray(plddt, np.float64), np.asarray(lddt, np.float64)
    if predicted.shape != real.shape or predicted.ndim != 1:
        raise ProtquantError(
            f"pLDDT of shape {predicted.shape} and lDDT of shape {real.shape}: give one value per residue in both."
        )
    present = np.isfinite(real) & np.isfinite(predicted)
    predicted, real = predicted[present], real[present]
    for name, values, top in (("pLDDT", predicted, 100.0), ("lDDT", real, 1.0)):
        if len(values) and (values.min() < 0 or values.max() > top):
            raise ProtquantError(f"{name} is between 0 and {top:g}; got {values.min():g} to {values.max():g}.")
    return predicted, real
