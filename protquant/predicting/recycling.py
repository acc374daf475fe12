"""Checks after every pass through the trunk: finite numbers, and the change of the coordinates."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.models import ESMFold, FoldingInput
from protquant.models.structure_module import Structure

__all__ = ["PassWatch", "check_tolerance", "distance_change", "not_finite"]

_CA = 1  # of the 14 atoms


def check_tolerance(tolerance: float) -> None:
    """Raise an error for an invalid recycle tolerance.

    Raises
    ------
    ProtquantError
        If it is negative or not finite.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ProtquantError(f"the recycle tolerance is {tolerance}; give 0 (all recycles are done) or more angstrom")


def distance_change(before: Float[Tensor, "l 3"], after: Float[Tensor, "l 3"]) -> float:
    """Return the root mean square difference of the distances within two traces of C-alpha atoms, in angstrom.

    It needs no superposition. ColabFold calls this number `tol`, and AlphaFold-Multimer 2.3 uses it to stop: the mean
    is over all ordered pairs, including each residue with itself, and 1e-8 is added to it.
    """
    distances = [torch.cdist(ca, ca, compute_mode="donot_use_mm_for_euclid_dist") for ca in (before, after)]
    return float((distances[0].sub_(distances[1]).square_().mean() + 1e-8).sqrt())


def not_finite(model: ESMFold, name: str, what: str) -> ProtquantError:
    """Return the error for numbers of a protein that are not finite, with a remedy.

    Parameters
    ----------
    name : str
        Name of the protein.
    what : str
        The numbers that are not finite.
    """
    if model.layer_mix.dtype != torch.float32:
        remedy = "fold it with --dtype float32"
    elif model.lineage.execution != "float":
        remedy = f"fold it with --quant fp32, to see whether it is the recipe {model.lineage.recipe}, and report it"
    else:
        remedy = "the weights may be damaged: import or download the model again"
    return ProtquantError(f"{name}: {what} not finite; {remedy}")


class PassWatch:
    """Checks every pass of a batch through the trunk; to be used as `after_pass` of the model.

    Parameters
    ----------
    model : ESMFold
    batch : FoldingInput
    names : sequence of str
        Names of the proteins of the batch.
    tolerance : float
        In angstrom: recycling ends when `distance_change` between two passes is smaller; 0 never ends it. If it is
        above 0, the batch must be one protein, because proteins of a batch would have to stop together.

    Attributes
    ----------
    recycles : int
        Number of recycles so far.

    Raises
    ------
    ProtquantError
        If `tolerance` is above 0 for several proteins, or after a pass with numbers that are not finite.
    """

    def __init__(self, model: ESMFold, batch: FoldingInput, names: Sequence[str], tolerance: float = 0.0) -> None:
        check_tolerance(tolerance)
        if tolerance and len(names) > 1:
            raise ProtquantError("proteins are folded one at a time with a recycle tolerance; give one")
        self.recycles = 0
        self._model, self._names, self._tolerance = model, names, tolerance
        self._lengths = batch.mask.sum(-1).tolist()
        self._residues = batch.chain_index[0] >= 0
        self._before: Tensor | None = None

    def __call__(self, recycle: int, single: Tensor, pair: Tensor, structure: Structure) -> bool:
        """Return whether the coordinates have converged."""
        self.recycles = recycle
        self._check_finite({"single": single, "pair": pair, "coordinates": structure.positions})
        if not self._tolerance:
            return False
        before, ca = self._before, structure.positions[0, self._residues, _CA].float()
        self._before = ca
        return before is not None and distance_change(before, ca) < self._tolerance

    def _check_finite(self, tensors: dict[str, Tensor]) -> None:
        # If any number is not finite, an extreme is not finite. Not aminmax, which would copy a slice of a padded pair.
        parts = [
            x[row, :length, :length] if name == "pair" else x[row, :length]
            for row, length in enumerate(self._lengths)
            for name, x in tensors.items()
        ]
        ends = torch.stack([torch.stack((part.amin(), part.amax())).float() for part in parts])
        for index, finite in enumerate(ends.isfinite().all(1).tolist()):
            if not finite:
                row, which = divmod(index, len(tensors))
                what = {"single": "the single representation is", "pair": "the pair representation is"}.get(
                    list(tensors)[which], "the coordinates are"
                )
                raise not_finite(self._model, self._names[row], f"after {_pass(self.recycles)} {what}")


def _pass(recycle: int) -> str:
    return f"recycle {recycle}" if recycle else "the first pass, before any recycle,"
