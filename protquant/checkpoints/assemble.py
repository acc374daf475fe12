"""Check that the tensors of a checkpoint fit the model, and compute the fingerprint of a model."""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.files import weights_fingerprint
from protquant.models import ESM2Config

__all__ = ["check_places", "fingerprint", "listed", "rotary_frequencies"]

_LISTED = 5


def check_places(places: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Check that the tensors `state` have the names and shapes of the model's tensors `places`.

    Raises
    ------
    ProtquantError
        If tensors are missing or surplus, or have another shape or kind.
    """
    complaints = []
    if missing := places.keys() - state.keys():
        complaints.append(f"{len(missing)} tensors are missing: {listed(missing)}")
    if surplus := state.keys() - places.keys():
        complaints.append(f"{len(surplus)} tensors have no place in the model: {listed(surplus)}")
    common = places.keys() & state.keys()
    misshapen = [
        f"{name} is {tuple(state[name].shape)} and should be {tuple(places[name].shape)}"
        for name in common
        if places[name].shape != state[name].shape
    ]
    if misshapen:
        complaints.append(f"{len(misshapen)} tensors have another shape: {listed(misshapen)}")
    integers = [name for name in common if not state[name].is_floating_point()]
    if integers:
        complaints.append(f"{len(integers)} tensors are not of a floating-point type: {listed(integers)}")
    if complaints:
        raise ProtquantError(
            f"{source}: the weights do not fit the model. {'; '.join(complaints)}."
            " Check that the files are complete and of one ESM-2 or ESMFold checkpoint."
        )


def listed(names: Collection[str]) -> str:
    """Return the first names in alphabetical order, and the number of further names."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(sorted(names)[:_LISTED]) + more


def fingerprint(config: Any, state: Mapping[str, Tensor]) -> str:
    """Return a hash of sizes and weights (as float32), which does not depend on the layout of the checkpoint.

    Returns
    -------
    str
        SHA-256, in hexadecimal.
    """
    return weights_fingerprint(asdict(config), state)


def rotary_frequencies(
    tensors: Mapping[str, Tensor], config: ESM2Config, source: str, base: float = 10_000.0
) -> tuple[float, ...] | None:
    """Return the rotary frequencies of a checkpoint; None if they are the default ones.

    Parameters
    ----------
    tensors : Mapping
        Frequencies by name, one entry per layer or one for all; empty if the checkpoint has none.
    base : float
        Base of the frequencies if the checkpoint has none.

    Raises
    ------
    ProtquantError
        If layers differ, or their number does not fit the size of the heads.
    """
    head_dim = config.dim // config.num_heads
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    default = 1.0 / 10_000**exponent
    carried = {name: tensor.to(torch.float32) for name, tensor in tensors.items()}
    first = next(iter(carried.values()), 1.0 / base**exponent)
    for name, tensor in carried.items():
        if tensor.shape != default.shape:
            raise ProtquantError(
                f"{source}: {name} has shape {tuple(tensor.shape)}, heads of {head_dim} channels need"
                f" {tuple(default.shape)}."
            )
        if not torch.equal(tensor, first):
            raise ProtquantError(f"{source}: {name} differs from the other layers', which is not supported.")
    if torch.allclose(first, default, rtol=1e-6, atol=0):
        return None
    return tuple(first.tolist())
