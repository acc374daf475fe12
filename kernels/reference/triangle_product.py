"""The sums over the third residue of a triangle, for each channel, on int8 codes."""

from jaxtyping import Float64, Int8
from torch import Tensor

from protquant.kernels.operands import Direction, Grid

__all__ = ["triangle_product"]


def triangle_product(
    left: Int8[Tensor, "c a b"], right: Int8[Tensor, "c d e"], grids: tuple[Grid, Grid], direction: Direction
) -> Float64[Tensor, "c i j"]:
    """Return the sum over k of `left[i, k] * right[j, k]` or, along incoming edges, of `left[k, i] * right[k, j]`.

    It is the step between projections and LayerNorm in Algorithms 11 and 12 of Jumper et al. 2021. Sums of products of
    codes, less their zero points, are exact; the unit of the result is the product of both scales.
    """
    a, b = (codes.double() - grid.signed.zero for codes, grid in zip((left, right), grids, strict=True))
    return a @ b.mT if direction == "outgoing" else a.mT @ b
