"""A projection times the sigmoid of another, quantized: an operand of triangle multiplication."""

from jaxtyping import Bool, Int8
from torch import Tensor

from protquant.kernels.epilogue import Epilogue
from protquant.kernels.operands import Codes8, Grid, IntegerWeight
from protquant.kernels.reference.linear import linear
from protquant.kernels.reference.quantize import quantize

__all__ = ["gated_projection"]


def gated_projection(
    x: Codes8, proj: IntegerWeight, gate: IntegerWeight, grid: Grid, mask: Bool[Tensor, " m"] | None = None
) -> Int8[Tensor, "n m"]:
    """Return codes of `sigmoid(gate(x)) * proj(x) * mask`, channel by channel, shape (n, i, k) with m = i * k.

    They are an operand of Algorithms 11 and 12 of Jumper et al. 2021.
    """
    gated = linear(x, proj, Epilogue(gate=linear(x, gate, Epilogue("sigmoid"))))
    if mask is not None:
        gated = gated * mask[:, None]
    return quantize(gated, grid).data.T.contiguous()
