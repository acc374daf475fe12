"""The definition of a linear layer with integer weights, on activations in codes or in floats."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor

from protquant.kernels.epilogue import PLAIN, Epilogue
from protquant.kernels.operands import Activation, Codes8, Grid, IntegerWeight, spread
from protquant.kernels.reference.quantize import quantize

__all__ = ["linear", "linear_codes"]


def linear(
    x: Codes8 | Float[Tensor, "m k"], weight: IntegerWeight, after: Epilogue = PLAIN
) -> Float[Tensor, "m n"] | Int8[Tensor, "m n"]:
    """Return `residual + gate * activation(x weight^T + bias)`.

    If x is codes, the sum over a group of channels is an exact integer. Groups are scaled and added in their order, in
    float32. The result is rounded once, to a type or to codes.

    Raises
    ------
    ValueError
        If the shape of the gate or the residual does not fit.
    """
    steps = weight.steps().double()
    if weight.kind == "int8" and weight.zero is not None:
        steps = steps - spread(weight.zero, weight.group_size, weight.in_features).double()
    values = x.data.double() - x.zero[:, None].double() if isinstance(x, Codes8) else x.double()
    after.check(len(values), len(steps))
    size = weight.group_size or weight.in_features
    y = values.new_zeros(len(values), len(steps), dtype=torch.float32)
    for index, (some, part) in enumerate(zip(values.split(size, 1), steps.split(size, 1), strict=True)):
        scale = weight.step_scale[:, index]
        # float64 holds sums of products of codes exactly.
        y += (some @ part.T).float() * (x.scale[:, None] * scale if isinstance(x, Codes8) else scale)
    if weight.bias is not None:
        y = y + weight.bias
    return _finish(y, after)


def linear_codes(x: Codes8, weight: IntegerWeight, activation: Activation, outs: Sequence[tuple[Grid, int]]) -> Codes8:
    """Return codes of `activation(x weight^T + bias)`; `outs` has the grids, each with its number of outputs.

    The result has the scale and zero point of the first grid.
    """
    parts = linear(x, weight, Epilogue(activation)).split([count for _, count in outs], dim=1)
    codes = [quantize(part, grid) for part, (grid, _) in zip(parts, outs, strict=True)]
    return Codes8(torch.cat([each.data for each in codes], dim=1), codes[0].scale, codes[0].zero)


def _finish(y: Float[Tensor, "m n"], after: Epilogue) -> Float[Tensor, "m n"] | Int8[Tensor, "m n"]:
    if after.activation == "relu":
        y = F.relu(y)
    elif after.activation == "gelu":
        y = F.gelu(y)
    elif after.activation == "sigmoid":
        y = y.sigmoid()
    if after.gate is not None:
        y = y * after.gate.float()
    if after.residual is not None:
        y = y + after.residual.float()
    return y.to(after.dtype) if after.grid is None else quantize(y, after.grid).data
