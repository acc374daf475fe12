"""A linear layer on int8 codes: what every fast one must give."""

from typing import Unpack

import torch
from jaxtyping import Float, Int8, Integer
from torch import Tensor

from protquant.kernels.reference.epilogue import Activation, Epilogue, finish

__all__ = ["Activation", "check_linear_int8", "check_rows", "linear_int8"]

# With zero points both factors take up to 255 steps, and 32 bits hold this many products of them.
_MOST_CHANNELS = (2**31 - 1) // 255**2


def linear_int8(
    x: Int8[Tensor, "m k"],
    x_scale: Float[Tensor, " s"],
    weight: Int8[Tensor, "n k"],
    weight_scale: Float[Tensor, " n"],
    *,
    x_zero: Integer[Tensor, " s"] | None = None,
    weight_zero: Integer[Tensor, " n"] | None = None,
    **after: Unpack[Epilogue],
) -> Float[Tensor, "m n"] | Int8[Tensor, "m n"]:
    """`residual + gate * activation(x_scale * weight_scale * (x - x_zero) (weight - weight_zero)^T + bias)`.

    Products are summed as integers, without error; what follows is float32, rounded at the end to a type, or to codes.

    Parameters
    ----------
    x : Tensor, shape=(m, k), dtype=int8
        Codes of activations; rows may be strided.
    x_scale : Tensor, shape=(m,) or (1,)
        One per row (token) or one for all.
    weight : Tensor, shape=(n, k), dtype=int8
        Codes of weights.
    weight_scale : Tensor, shape=(n,)
        One per output channel.
    x_zero : Tensor of int32, shape as of x_scale, optional
        The codes that mean 0, -128 to 127; None for 0.
    weight_zero : Tensor of int32, shape=(n,), optional
        The same of weights, by output channel.
    **after
        `Epilogue`: bias, activation, gate, residual, dtype; out_scale, out_zero, out_low, out_high.

    Raises
    ------
    ValueError
        For shapes, dtypes or options that do not fit.
    """
    check_linear_int8(x, x_scale, weight, weight_scale, x_zero, weight_zero)
    # Sums of products of int8 are far below 2^53: float64 holds them exactly, and has a fast product.
    steps = x.double() if x_zero is None else x.double() - x_zero.double()[:, None]
    weight_steps = weight.double() if weight_zero is None else weight.double() - weight_zero.double()[:, None]
    total = steps @ weight_steps.T
    return finish(total.float() * (x_scale.float()[:, None] * weight_scale.float()), **after)


def check_linear_int8(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    x_zero: Tensor | None,
    weight_zero: Tensor | None = None,
) -> None:
    """Raise ValueError where the operands of `linear_int8` do not fit together."""
    for name, tensor in (("x", x), ("weight", weight)):
        if tensor.dtype != torch.int8 or tensor.ndim != 2:
            raise ValueError(f"{name} must be a matrix of int8, not {tuple(tensor.shape)} of {tensor.dtype}")
    if x.shape[1] != weight.shape[1]:
        raise ValueError(f"x has {x.shape[1]} channels, and the weight reads {weight.shape[1]}")
    if tuple(weight_scale.shape) != (len(weight),):
        raise ValueError(f"{len(weight)} output channels have {tuple(weight_scale.shape)} scales")
    if weight_zero is not None and tuple(weight_zero.shape) != (len(weight),):
        raise ValueError(f"{len(weight)} output channels have {tuple(weight_zero.shape)} zero points")
    check_rows(len(x), x_scale, x_zero)
    if x.shape[1] > _MOST_CHANNELS:
        raise ValueError(f"sums over {x.shape[1]} channels may pass 32 bits; at most {_MOST_CHANNELS} do not")


def check_rows(m: int, x_scale: Tensor, x_zero: Tensor | None) -> None:
    """Raise ValueError where scales and zero points of activations are not one for all m rows, or one for each."""
    for name, rows in (("x_scale", x_scale), ("x_zero", x_zero)):
        if rows is not None and tuple(rows.shape) not in ((m,), (1,)):
            raise ValueError(f"{name} has the shape {tuple(rows.shape)}, not ({m},) or (1,)")
