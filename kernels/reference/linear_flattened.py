"""The definition of a linear layer that reads channels split into pieces (Zhang et al. 2024, FlattenQuant)."""

from typing import NamedTuple

from jaxtyping import Float, Int8, Integer
from torch import Tensor

from protquant.kernels.epilogue import PLAIN, Epilogue
from protquant.kernels.operands import Grid, IntegerWeight
from protquant.kernels.reference.linear import linear
from protquant.kernels.reference.quantize import quantize

__all__ = ["Pieces", "linear_flattened"]


class Pieces(NamedTuple):
    """Pieces of channels: the part of a channel's magnitude that lies between two limits, with its sign.

    Attributes
    ----------
    channel : Tensor, dtype=int, shape=(d,)
        Channel of each piece.
    low, high : Tensor, shape=(d,)
        Limits of the piece's magnitude, 0 or more; infinity for no limit.
    """

    channel: Integer[Tensor, " d"]
    low: Float[Tensor, " d"]
    high: Float[Tensor, " d"]

    def of(self, x: Float[Tensor, "m c"]) -> Float[Tensor, "m d"]:
        """Return the pieces of activations, in their type."""
        repeated, low, high = x.index_select(1, self.channel), self.low.to(x.dtype), self.high.to(x.dtype)
        return repeated.clamp(-high, high) - repeated.clamp(-low, low)


def linear_flattened(
    x: Float[Tensor, "m c"], pieces: Pieces, grid: Grid, weight: IntegerWeight, after: Epilogue = PLAIN
) -> Float[Tensor, "m n"] | Int8[Tensor, "m n"]:
    """Return `linear` on the codes of the pieces of `x`; all d pieces have the same `grid`.

    Raises
    ------
    ValueError
        If the shape of the gate or the residual does not fit.
    """
    return linear(quantize(pieces.of(x), grid), weight, after)
