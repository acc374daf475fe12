"""Granularity of scales: one per tensor, channel, token or group of neighbors."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from protquant.errors import ProtquantError

__all__ = [
    "Granularity",
    "GroupSize",
    "check_group",
    "grouped",
    "magnitude",
    "of_columns",
    "ungrouped",
    "vector_range",
    "weight_range",
]

Granularity = Literal["tensor", "channel", "token", "group"]
GroupSize = Annotated[int, Field(ge=1, le=2**16)]  # rows are padded to whole groups


def check_group(granularity: str, group_size: int | None) -> None:
    """Raise `ProtquantError` unless `group_size` is set exactly if `granularity` is `group`."""
    if (granularity == "group") != (group_size is not None):
        raise ProtquantError("group_size goes with granularity 'group', and only with it")


def grouped(x: Tensor, group_size: int | None) -> Tensor:
    """Return `x` of shape (..., c) as (..., groups, group_size); without a group size return `x`.

    A shorter last group is padded with zeros. Every range contains 0, so that padding changes no grid.
    """
    if group_size is None:
        return x
    groups = -(-x.shape[-1] // group_size)
    padding = groups * group_size - x.shape[-1]
    return (F.pad(x, (0, padding)) if padding else x).reshape(*x.shape[:-1], groups, group_size)


def ungrouped(groups: Tensor, shape: torch.Size) -> Tensor:
    """Undo `grouped`: return the tensor of this shape."""
    if groups.shape == shape:
        return groups
    return groups.flatten(-2)[..., : shape[-1]].contiguous()


def of_columns(scale: Tensor, index: Tensor, group_size: int) -> Tensor:
    """Return the scales or zero points of n columns, shape (out, n), from those of groups, shape (out, groups, 1)."""
    return scale[:, index // group_size, 0]


def weight_range(weight: Tensor, granularity: Granularity, group_size: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the extremes of a weight in the shape of its scales, which broadcasts against the weight or its groups.

    Raises
    ------
    ProtquantError
        For granularity `token`, which only activations have.
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
    """Return the extremes of every vector along the last axis, or of every group in it; 0 for empty vectors."""
    values = grouped(x.detach().float(), group_size)
    if not values.shape[-1]:
        nothing = values.new_zeros(*values.shape[:-1], 1)
        return nothing, nothing
    low, high = values.aminmax(dim=-1, keepdim=True)
    return low, high


def magnitude(low: Tensor, high: Tensor) -> Tensor:
    """Return the largest magnitude of a range."""
    return torch.maximum(-low, high)
