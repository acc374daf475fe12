"""A linear layer that reads channels split into pieces (Zhang et al. 2024, FlattenQuant): what a fast one must give."""

from typing import NamedTuple

from jaxtyping import Float, Int8, Integer
from torch import Tensor

from protquant.kernels.epilogue import PLAIN, Epilogue
from protquant.kernels.operands import Grid, IntegerWeight
from protquant.kernels.reference.linear import linear
from protquant.kernels.reference.quantize import quantize

__all__ = ["Pieces", "linear_flattened"]


class Pieces(NamedTuple):
    """Pieces of channels: what a channel has between two magnitudes, with its sign.

    Attributes
    ----------
    channel : Tensor, dtype=int, shape=(d,)
        Which channel each piece is of.
    low, high : Tensor, shape=(d,)
        Magnitudes between which the piece lies, 0 or more; infinity for no end.
    """

    channel: Integer[Tensor, " d"]
    low: Float[Tensor, " d"]
    high: Float[Tensor, " d"]

    def of(self, x: Float[Tensor, "m c"]) -> Float[Tensor, "m d"]:
        """The pieces of activations, in their type."""
        repeated, low, high = x.index_select(1, self.channel), self.low.to(x.dtype), self.high.to(x.dtype)
        return repeated.clamp(-high, high) - repeated.clamp(-low, low)


def linear_flattened(
    x: Float[Tensor, "m c"], pieces: Pieces, grid: Grid, weight: IntegerWeight, after: Epilogue = PLAIN
) -> Float[Tensor, "m n"] | Int8[Tensor, "m n"]:
    """`linear` of the codes of the pieces of `x`: `grid` is one for all pieces, `weight` reads d of them.

    Raises
    ------
    ValueError
        For a gate or a residual that does not fit.
    """
    return linear(quantize(pieces.of(x), grid), weight, after)
