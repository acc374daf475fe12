"""What shares a scale: a tensor, a channel, a token or a group of neighbors."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from protquant.errors import ProtquantError

__all__ = [
    "GRANULARITIES",
    "Granularity",
    "check_granularity",
    "grouped",
    "magnitude",
    "of_columns",
    "ungrouped",
    "vector_range",
    "weight_range",
]

Granularity = Literal["tensor", "channel", "token", "group"]
_LARGEST_GROUP = 2**16  # rows are filled up to whole groups
GRANULARITIES: tuple[Granularity, ...] = ("tensor", "channel", "token", "group")


def check_granularity(granularity: object, group_size: object, known: tuple[Granularity, ...] = GRANULARITIES) -> None:
    """Raise `ProtquantError` unless `granularity` is `known`, and comes with a `group_size` if it is `group`."""
    if granularity not in known:
        raise ProtquantError(f"granularity {granularity!r} is none of {', '.join(known)}")
    if (granularity == "group") != (group_size is not None):
        raise ProtquantError("group_size goes with granularity 'group', and only with it")
    if group_size is None:
        return
    if isinstance(group_size, bool) or not isinstance(group_size, int) or not 1 <= group_size <= _LARGEST_GROUP:
        raise ProtquantError(f"group_size {group_size!r} is not a positive integer up to {_LARGEST_GROUP}")


def grouped(x: Tensor, group_size: int | None) -> Tensor:
    """Return `x` of shape (..., c) as (..., groups, group_size), or as it is without groups.

    A last group that is shorter is filled up with zeros, which every range holds: they change no grid.
    """
    if group_size is None:
        return x
    groups = -(-x.shape[-1] // group_size)
    padding = groups * group_size - x.shape[-1]
    return (F.pad(x, (0, padding)) if padding else x).reshape(*x.shape[:-1], groups, group_size)


def ungrouped(groups: Tensor, shape: torch.Size) -> Tensor:
    """Return what `grouped` was given, of this shape."""
    if groups.shape == shape:
        return groups
    return groups.flatten(-2)[..., : shape[-1]].contiguous()


def of_columns(scale: Tensor, index: Tensor, group_size: int) -> Tensor:
    """Return the scales or zero points, shape (out, groups, 1), that columns of a weight have: shape (out, n)."""
    return scale[:, index // group_size, 0]


def weight_range(weight: Tensor, granularity: Granularity, group_size: int | None = None) -> tuple[Tensor, Tensor]:
    """Extremes of a weight, shape as scales are to have: they broadcast against the weight, or against its groups.

    Raises
    ------
    ProtquantError
        For granularity `token`, which is for activations.
    """
    values = weight.detach().float()
    if granularity == "token":
        raise ProtquantError("granularity 'token' is for activations; for weights say 'channel'")
    if granularity == "tensor":
        low, high = values.aminmax()
        return low, high
    if group_size is not None:
        return vector_range(values, group_size)
    low, high = values.flatten(1).aminmax(dim=1)
    shape = (-1, *[1] * (values.ndim - 1))
    return low.view(shape), high.view(shape)


def vector_range(x: Tensor, group_size: int | None = None) -> tuple[Tensor, Tensor]:
    """Extremes of every vector along the last axis, or of every group in it; 0 for a vector without values."""
    values = grouped(x.detach().float(), group_size)
    if not values.shape[-1]:
        nothing = values.new_zeros(*values.shape[:-1], 1)
        return nothing, nothing
    low, high = values.aminmax(dim=-1, keepdim=True)
    return low, high


def magnitude(low: Tensor, high: Tensor) -> Tensor:
    """Largest magnitude of a range."""
    return torch.maximum(-low, high)
