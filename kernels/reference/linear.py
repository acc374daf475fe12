"""A linear layer on integer codes: what every fast one must give."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int8
from torch import Tensor

__all__ = ["Activation", "linear_int8"]

Activation = Literal["none", "relu", "gelu"]


def linear_int8(
    x: Int8[Tensor, "m k"],
    x_scale: Float[Tensor, " s"],
    weight: Int8[Tensor, "n k"],
    weight_scale: Float[Tensor, " n"],
    *,
    x_zero: Int[Tensor, " s"] | None = None,
    bias: Float[Tensor, " n"] | None = None,
    activation: Activation = "none",
    gate: Float[Tensor, "m n"] | None = None,
    residual: Float[Tensor, "m n"] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "m n"]:
    """`residual + gate * activation(x_scale * weight_scale * (x - x_zero) weight^T + bias)`.

    Products are summed as integers, without error; what follows is float32, rounded to `dtype` at the end.

    Parameters
    ----------
    x : Tensor, shape=(m, k), dtype=int8
        Codes of activations; rows may be strided.
    x_scale : Tensor, shape=(m,) or (1,)
        One per row (token) or one for all.
    weight : Tensor, shape=(n, k), dtype=int8
        Symmetric codes of weights.
    weight_scale : Tensor, shape=(n,)
        One per output channel.
    x_zero : Tensor of int32, shape as of x_scale, optional
        The codes that mean 0; None for 0.
    gate, residual : Tensor, shape=(m, n), optional
        Factors, after the activation, and summands at the end.

    Raises
    ------
    ValueError
        For shapes or dtypes that do not fit.
    """
    check_linear_int8(x, x_scale, weight, weight_scale, x_zero)
    # Sums of products of int8 are far below 2^53: float64 holds them exactly, and has a fast product.
    total = x.double() @ weight.double().T
    if x_zero is not None:
        total = total - x_zero.double()[:, None] * weight.double().sum(1)
    y = total.float() * (x_scale.float()[:, None] * weight_scale.float())
    if bias is not None:
        y = y + bias.float()
    if activation == "relu":
        y = y.relu()
    elif activation == "gelu":
        y = F.gelu(y)
    if gate is not None:
        y = y * gate.float()
    if residual is not None:
        y = y + residual.float()
    return y.to(dtype)


def check_linear_int8(x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, x_zero: Tensor | None) -> None:
    """Raise ValueError where the operands of `linear_int8` do not fit together."""
    for name, tensor in (("x", x), ("weight", weight)):
        if tensor.dtype != torch.int8 or tensor.ndim != 2:
            raise ValueError(f"{name} must be a matrix of int8, not {tuple(tensor.shape)} of {tensor.dtype}")
    if x.shape[1] != weight.shape[1]:
        raise ValueError(f"x has {x.shape[1]} channels, and the weight reads {weight.shape[1]}")
    if tuple(weight_scale.shape) != (len(weight),):
        raise ValueError(f"{len(weight)} output channels have {tuple(weight_scale.shape)} scales")
    for name, rows in (("x_scale", x_scale), ("x_zero", x_zero)):
        if rows is not None and tuple(rows.shape) not in ((len(x),), (1,)):
            raise ValueError(f"{name} has the shape {tuple(rows.shape)}, not ({len(x)},) or (1,)")
