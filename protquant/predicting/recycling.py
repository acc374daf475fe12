"""Checks after every pass through the trunk: whether its numbers are finite, and how far atoms have moved."""

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
    """Refuse a tolerance of recycling that makes no sense.

    Raises
    ------
    ProtquantError
        If it is negative or not finite.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ProtquantError(f"the recycle tolerance is {tolerance}; give 0 (all recycles are done) or more angstrom")


def distance_change(before: Float[Tensor, "l 3"], after: Float[Tensor, "l 3"]) -> float:
    """Return the root mean square difference of the distances within two traces of C-alpha atoms, in angstrom.

    It needs no superposition. This is the number that ColabFold calls `tol`, and AlphaFold-Multimer 2.3 stops by: the
    mean is over all ordered pairs, those of a residue with itself among them, and 1e-8 is added to it.
    """
    distances = [torch.cdist(ca, ca, compute_mode="donot_use_mm_for_euclid_dist") for ca in (before, after)]
    return float((distances[0].sub_(distances[1]).square_().mean() + 1e-8).sqrt())


def not_finite(model: ESMFold, name: str, what: str) -> ProtquantError:
    """Return the error that numbers of a protein are not finite, with what can be done about it.

    Parameters
    ----------
    name : str
        Of the protein.
    what : str
        Which numbers.
    """
    if model.layer_mix.dtype != torch.float32:
        remedy = "fold it with --dtype float32"
    elif model.lineage.execution != "float":
        remedy = f"fold it with --quant fp32, to see whether it is the recipe {model.lineage.recipe}, and report it"
    else:
        remedy = "the weights may be damaged: import or download the model again"
    return ProtquantError(f"{name}: {what} not finite; {remedy}")


class PassWatch:
    """Looks at every pass of a batch through the trunk; an `after_pass` of the model.

    Parameters
    ----------
    model : ESMFold
    batch : FoldingInput
    names : sequence of str
        Of the proteins of the batch.
    tolerance : float
        In angstrom: the passes end where `distance_change` between two of them is smaller. 0: never. Above 0 the batch
        is one protein: others would go on or stop with it, and its result would depend on them.

    Attributes
    ----------
    recycles : int
        How often the output has gone through the trunk again.

    Raises
    ------
    ProtquantError
        If `tolerance` is above 0 for several proteins; and after a pass whose numbers are not finite.
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
        """Return whether the protein has come to rest."""
        self.recycles = recycle
        self._check_finite({"single": single, "pair": pair, "coordinates": structure.positions})
        if not self._tolerance:
            return False
        before, ca = self._before, structure.positions[0, self._residues, _CA].float()
        self._before = ca
        return before is not None and distance_change(before, ca) < self._tolerance

    def _check_finite(self, tensors: dict[str, Tensor]) -> None:
        # The ends of what is not finite are not finite. Not by aminmax, which copies a part of a padded pair.
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
