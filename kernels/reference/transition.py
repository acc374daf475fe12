"""The two-layer perceptron of the pair on int8 codes."""

import torch
from jaxtyping import Float, Int8, Integer
from torch import Tensor

from protquant.kernels.reference.linear import check_linear_int8, linear_int8
from protquant.kernels.reference.projection import Int8Projection
from protquant.kernels.reference.uniform import encode_uniform

__all__ = ["check_transition_int8", "transition_int8"]


def transition_int8(
    x: Int8[Tensor, "m k"],
    x_scale: Float[Tensor, " s"],
    up: Int8Projection,
    hidden_scale: Float[Tensor, ""],
    down: Int8Projection,
    *,
    x_zero: Integer[Tensor, " s"] | None = None,
    hidden_zero: Integer[Tensor, ""] | None = None,
    out_low: int = -128,
    out_high: int = 127,
    residual: Float[Tensor, "m n"] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "m n"]:
    """`residual + down(codes of relu(up(x)))`; products of both layers are summed as integers, without error.

    Parameters
    ----------
    x : Tensor, shape=(m, k), dtype=int8
        Codes of normalised rows, which may be strided.
    x_scale : Tensor, shape=(m,) or (1,)
        One per row or one for all.
    up, down : Int8Projection, weights of shape=(f, k) and (n, f)
    hidden_scale : Tensor, shape=()
        Distance of two codes of the hidden layer, known beforehand.
    x_zero : Tensor of int32, shape as of x_scale, optional
        The codes of `x` that mean 0; None for 0.
    hidden_zero : Tensor of int32, shape=(), optional
        The code of the hidden layer that means 0; None for 0.
    out_low, out_high : int
        The smallest and the largest code of the hidden layer, within -128 to 127: after ReLU, -128 to 127 with a
        zero point of -128, or 0 to 127 without one.
    residual : Tensor, shape=(m, n), optional
        Summands at the end.
    dtype : torch.dtype
        Of the output.

    Raises
    ------
    ValueError
        For shapes, dtypes or codes that do not fit.
    """
    check_transition_int8(x, x_scale, up, hidden_scale, down, x_zero, out_low, out_high)
    hidden = linear_int8(x, x_scale, up.weight, up.scale, x_zero=x_zero, bias=up.bias, activation="relu")
    codes = encode_uniform(hidden, hidden_scale.float(), hidden_zero, out_low, out_high).to(torch.int8)
    return linear_int8(
        codes,
        hidden_scale.reshape(1),
        down.weight,
        down.scale,
        x_zero=None if hidden_zero is None else hidden_zero.reshape(1),
        bias=down.bias,
        residual=residual,
        dtype=dtype,
    )


def check_transition_int8(
    x: Tensor,
    x_scale: Tensor,
    up: Int8Projection,
    hidden_scale: Tensor,
    down: Int8Projection,
    x_zero: Tensor | None,
    out_low: int,
    out_high: int,
) -> None:
    """Raise ValueError where the operands of `transition_int8` do not fit together."""
    check_linear_int8(x, x_scale, up.weight, up.scale, x_zero)
    if down.weight.dtype != torch.int8 or down.weight.ndim != 2 or down.weight.shape[1] != len(up.weight):
        raise ValueError(f"{len(up.weight)} hidden channels, and a weight {tuple(down.weight.shape)} that reads them")
    if tuple(down.scale.shape) != (len(down.weight),):
        raise ValueError(f"{len(down.weight)} output channels have {tuple(down.scale.shape)} scales")
    if hidden_scale.numel() != 1:
        raise ValueError(f"the hidden layer has one scale, not {tuple(hidden_scale.shape)}")
    if not -128 <= out_low <= out_high <= 127:
        raise ValueError(f"codes from {out_low} to {out_high} are not codes of int8")
