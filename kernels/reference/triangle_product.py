"""The sums over the third residue of a triangle, channel by channel, on int8 codes."""

from jaxtyping import Float64, Int8
from torch import Tensor

from protquant.kernels.operands import Direction, Grid

__all__ = ["triangle_product"]


def triangle_product(
    left: Int8[Tensor, "c i k"], right: Int8[Tensor, "c j k"], grids: tuple[Grid, Grid], direction: Direction
) -> Float64[Tensor, "c i j"]:
    """Sum over k of `left[i, k] * right[j, k]` or, along incoming edges, of `left[k, i] * right[k, j]`.

    The step between projections and LayerNorm in Algorithms 11 and 12 of Jumper et al. 2021. Products of codes less
    their zero points are summed as integers, exactly; the result counts in steps of both grids.
    """
    a, b = (codes.double() - grid.signed.zero for codes, grid in zip((left, right), grids, strict=True))
    return a @ b.mT if direction == "outgoing" else a.mT @ b
