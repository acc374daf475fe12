"""B-factors from the expected error of each atom, for programs that weight atoms by their B-factors.

The error is estimated from the pLDDT by an empirical formula and converted to a B-factor as in Phenix [1]_, which took
the formula from the authors of RoseTTAFold [2]_.

References
----------
.. [1] R. D. Oeffner et al. 2022, "Putting AlphaFold models to work with phenix.process_predicted_model and ISOLDE",
   Acta Cryst. D78, 1303; https://phenix-online.org/documentation/reference/process_predicted_model.html
.. [2] M. Baek et al. 2021, "Accurate prediction of protein structures and interactions using a three-track neural
   network", Science 373, 871.
"""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from protquant.proteins.prediction import Prediction

__all__ = ["expected_error", "with_expected_error"]

_LARGEST = 999.99  # largest value in the six columns of the PDB format; a pLDDT below 34.7 would exceed it


def expected_error(plddt: ArrayLike) -> NDArray[np.floating]:
    """Return the expected root-mean-square error of positions, in angstrom, for a pLDDT from 0 to 100.

    The error is 1.5 exp(4 (0.7 - pLDDT/100)): 0.45 angstrom at 100, 1.5 at 70, and 24.7 at 0.
    """
    return 1.5 * np.exp(4 * (0.7 - np.asarray(plddt, dtype=np.float64) / 100))


def with_expected_error(prediction: Prediction) -> Prediction:
    """Return a copy of a prediction with B-factors from the expected error of each atom.

    B = 8 pi^2/3 times the square of `expected_error` of the atom's own pLDDT, at most 999.99, the largest value of the
    PDB format. The PDB and mmCIF files state what their B-factors are.

    Parameters
    ----------
    prediction : Prediction
        A prediction with the pLDDT in `atoms.b_factor`; it is not changed.
    """
    if prediction.b_factor == "error":
        return prediction
    atoms = prediction.atoms.copy()
    b_factors = 8 * math.pi**2 / 3 * expected_error(atoms.b_factor) ** 2
    atoms.b_factor = np.minimum(b_factors, _LARGEST)
    return replace(prediction, atoms=atoms, b_factor="error")
