"""What a linear layer does with its sums: bias, activation, gate, residual, and rounding to a type or to codes."""

from typing import Literal, TypedDict, Unpack, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor

from protquant.kernels.reference.uniform import encode_uniform

__all__ = ["Activation", "Epilogue", "check_epilogue", "finish"]

Activation = Literal["none", "relu", "gelu", "sigmoid"]


class Epilogue(TypedDict, total=False):
    """Options that all linear layers share, `residual + gate * activation(sums + bias)`; all may be left out.

    Attributes
    ----------
    bias : Tensor, shape=(n,), or None
        Summands before the activation.
    activation : str
        "none", "relu", "gelu" (the exact one) or "sigmoid".
    gate, residual : Tensor, shape=(m, n), or None
        Factors, after the activation, and summands at the end.
    dtype : torch.dtype
        What floats are written; float32 by default.
    out_scale : float or None
        The step of the output's codes, positive: where it is given, int8 codes are written and no floats.
    out_zero : int
        The code that means 0, by default 0.
    out_low, out_high : int
        The smallest and the largest code, by default -128 and 127.
    """

    bias: Float[Tensor, " n"] | None
    activation: Activation
    gate: Float[Tensor, "m n"] | None
    residual: Float[Tensor, "m n"] | None
    dtype: torch.dtype
    out_scale: float | None
    out_zero: int
    out_low: int
    out_high: int


def finish(y: Float[Tensor, "m n"], **after: Unpack[Epilogue]) -> Float[Tensor, "m n"] | Int8[Tensor, "m n"]:
    """What follows the scaled sums `y`, float32; `after` are the options of `Epilogue`.

    Raises
    ------
    ValueError
        For options that do not fit.
    """
    check_epilogue(*y.shape, **after)
    bias, gate, residual = after.get("bias"), after.get("gate"), after.get("residual")
    activation, out_scale = after.get("activation", "none"), after.get("out_scale")
    if bias is not None:
        y = y + bias.float()
    if activation == "relu":
        y = y.relu()
    elif activation == "gelu":
        y = F.gelu(y)
    elif activation == "sigmoid":
        y = y.sigmoid()
    if gate is not None:
        y = y * gate.float()
    if residual is not None:
        y = y + residual.float()
    if out_scale is None:
        return y.to(after.get("dtype", torch.float32))
    scale, zero = torch.tensor(out_scale, device=y.device), torch.tensor(after.get("out_zero", 0), device=y.device)
    return encode_uniform(y, scale, zero, after.get("out_low", -128), after.get("out_high", 127)).to(torch.int8)


def check_epilogue(m: int, n: int, **after: Unpack[Epilogue]) -> None:
    """Raise ValueError where options do not fit an output of m rows and n channels."""
    bias, out_scale = after.get("bias"), after.get("out_scale")
    if bias is not None and tuple(bias.shape) != (n,):
        raise ValueError(f"{n} output channels have a bias of the shape {tuple(bias.shape)}")
    for name, matrix in (("gate", after.get("gate")), ("residual", after.get("residual"))):
        if matrix is not None and tuple(matrix.shape) != (m, n):
            raise ValueError(f"{name} has the shape {tuple(matrix.shape)}, the output ({m}, {n})")
    if after.get("activation", "none") not in get_args(Activation):
        raise ValueError(f"activation {after['activation']!r} is none of {', '.join(get_args(Activation))}")
    if out_scale is None:
        return
    low, high, zero = after.get("out_low", -128), after.get("out_high", 127), after.get("out_zero", 0)
    if not out_scale > 0:
        raise ValueError(f"out_scale must be positive, not {out_scale}")
    if not -128 <= low <= high <= 127:
        raise ValueError(f"codes from {low} to {high} are not in the -128 to 127 of int8")
    if abs(zero) >= 2**20:
        raise ValueError(f"out_zero {zero} is not less than 2^20 in magnitude")
