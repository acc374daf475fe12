"""Put the tensors of a checkpoint into a model: every tensor has its place and every place its tensor."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import TypeVar

import torch
from torch import Tensor

from protquant.checkpoints.names import RenameTable
from protquant.errors import ProtquantError
from protquant.models import ESM2, ESM2Config, ESMFold, ESMFoldConfig

__all__ = ["assemble", "check_places", "fingerprint", "rotary_frequencies"]

_Model = TypeVar("_Model", bound=ESM2 | ESMFold)
_LISTED = 10


def assemble(
    make: Callable[[], _Model],
    state: dict[str, Tensor],
    source: str,
    table: RenameTable | None = None,
    known_fingerprint: str = "",
) -> _Model:
    """Build a model around tensors, in float32 and evaluation mode, without a second copy of them in memory.

    Parameters
    ----------
    make : callable
        Makes the model; called with the meta device as the default, so that it allocates nothing.
    state : dict
        The checkpoint's tensors, without those that may be ignored; emptied.
    source : str
        Where the checkpoint is, for messages and for the model's `source`.
    table : RenameTable, optional
        From the checkpoint's names to ours; by default they are ours.
    known_fingerprint : str
        Spares computing the model's fingerprint.

    Raises
    ------
    ProtquantError
        If tensors are missing, surplus, of another shape or kind, or not finite; names them as the checkpoint does.
    """
    with torch.device("meta"):
        model = make()
    places = model.state_dict()
    their_name = {name: (table and table.to_theirs(name)) or name for name in places}
    our_name = {theirs: ours for ours, theirs in their_name.items()}
    check_places({their_name[name]: place for name, place in places.items()}, state, source)
    # The extremes tell of any NaN or infinity, without a mask as large as the tensor.
    unreal = [name for name, tensor in state.items() if not torch.stack(tensor.aminmax()).isfinite().all()]
    if unreal:
        raise ProtquantError(
            f"{source}: {len(unreal)} tensors hold NaN or infinity: {_listed(unreal)}. The file is damaged or was"
            " saved from a failed training run; fetch it again."
        )
    for name in list(state):
        # One by one, so that a half-precision checkpoint is never held twice.
        places[our_name[name]] = state.pop(name).to(torch.float32).contiguous()
    model.load_state_dict(places, assign=True)
    model.source = source
    model.fingerprint = known_fingerprint or fingerprint(model.config, model.state_dict())
    model.eval()
    return model


def check_places(places: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Check that every tensor has its place, and every place its tensor.

    Raises
    ------
    ProtquantError
        If tensors are missing, surplus, or of another shape or kind.
    """
    complaints = []
    if missing := places.keys() - state.keys():
        complaints.append(f"{len(missing)} tensors are missing: {_listed(missing)}")
    if surplus := state.keys() - places.keys():
        complaints.append(f"{len(surplus)} tensors have no place in the model: {_listed(surplus)}")
    common = places.keys() & state.keys()
    misshapen = [
        f"{name} is {tuple(state[name].shape)} and should be {tuple(places[name].shape)}"
        for name in common
        if places[name].shape != state[name].shape
    ]
    if misshapen:
        complaints.append(f"{len(misshapen)} tensors have another shape: {_listed(misshapen)}")
    integers = [name for name in common if not state[name].is_floating_point()]
    if integers:
        complaints.append(f"{len(integers)} tensors are not of a floating-point type: {_listed(integers)}")
    if complaints:
        raise ProtquantError(
            f"{source}: the weights do not fit the model. {'; '.join(complaints)}."
            " Check that the files are complete and of one ESM-2 or ESMFold checkpoint."
        )


def _listed(names: Collection[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(sorted(names)[:_LISTED]) + more


def fingerprint(config: ESM2Config | ESMFoldConfig, state: Mapping[str, Tensor]) -> str:
    """Hash of sizes and weights (as float32): the same for the same model, from whatever layout it was loaded.

    Returns
    -------
    str
        SHA-256, in hexadecimal.
    """
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().float().contiguous().flatten().numpy().data)
    return digest.hexdigest()


def rotary_frequencies(
    tensors: Mapping[str, Tensor], config: ESM2Config, source: str, base: float = 10_000.0
) -> tuple[float, ...] | None:
    """The rotary frequencies that a checkpoint carries, where they differ from the default ones.

    Parameters
    ----------
    tensors : Mapping
        Their name -> frequencies, one entry per layer or one for all; empty if the checkpoint carries none.
    base : float
        Base of the frequencies if the checkpoint carries none.

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
