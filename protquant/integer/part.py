"""The common interface of a model's integer parts: they update streams in place, and report their execution."""

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from protquant.integer.pair_stream import PairStream
from protquant.kernels.backend import Backend, Linear

__all__ = ["BlockState", "HoldsLayers", "Part", "Runs", "SupportRow"]

Runs = Literal["integer", "simulated"]


@dataclass(frozen=True)
class SupportRow:
    """The execution of a part of a model.

    Attributes
    ----------
    path : str
        Path of the module.
    runs : str
        `integer`, or `simulated`: quantized and dequantized in float.
    what : str
        The kernel, or the reason why the part has no kernel.
    """

    path: str
    runs: Runs
    what: str


@dataclass
class BlockState:
    """The representations that the parts of a folding block update in place, one part after the other.

    Attributes
    ----------
    single : Tensor, shape=(b, l, s)
        Single representation, contiguous.
    pair : PairStream
    mask : Tensor of bool, shape=(b, l), or None
        False for padding; None if there is no padding.
    chunk_size : int or None
        Number of rows that simulated parts work on at a time.
    bias : Tensor, shape=(b, h, i, j), or None
        Attention bias of the single; one part sets it, and the part that reads it deletes it.
    """

    single: Float[Tensor, "b l s"]
    pair: PairStream
    mask: Bool[Tensor, "b l"] | None
    chunk_size: int | None = None
    bias: Float[Tensor, "b h i j"] | None = None

    def take_bias(self) -> Float[Tensor, "b h i j"]:
        """Return the bias, and delete it from the state."""
        bias, self.bias = self.bias, None
        assert bias is not None
        return bias

    @cached_property
    def pair_mask(self) -> Bool[Tensor, "b i j"] | None:
        """Return the mask of pairs of residues; None if there is no padding."""
        return None if self.mask is None else self.mask[:, :, None] & self.mask[:, None, :]

    @cached_property
    def full_mask(self) -> Bool[Tensor, "b l"]:
        """Return the mask of residues, also if there is no padding."""
        return (
            torch.ones(self.single.shape[:2], dtype=torch.bool, device=self.pair.device)
            if self.mask is None
            else self.mask
        )

    @cached_property
    def full_pair_mask(self) -> Bool[Tensor, "b i j"]:
        """Return the mask of pairs of residues, also if there is no padding."""
        return self.full_mask[:, :, None] & self.full_mask[:, None, :]


class Part(Protocol):
    """A part of a folding block, on integers or simulated.

    Attributes
    ----------
    rows : list of SupportRow
        Execution of the part, and that of each of its linear layers if the part as a whole is simulated.
    """

    rows: list[SupportRow]

    def update_(self, state: BlockState) -> None:
        """Update the state in place."""


class HoldsLayers(nn.Module):
    """A module whose attributes include linear layers of a backend.

    Attributes
    ----------
    backend : Backend
    """

    backend: Backend

    def prepared(self) -> dict[str, Linear]:
        """Return the layers by attribute name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Linear)}

    def unpacked(self) -> Self:
        """Return a copy whose weights are unpacked, for many calls in a row; drop it afterwards."""
        other = copy.copy(self)
        for name, layer in self.prepared().items():
            setattr(other, name, self.backend.unpacked(layer))
        return other
