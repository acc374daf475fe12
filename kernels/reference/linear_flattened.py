"""A linear layer that reads channels split into pieces (Zhang et al. 2024, FlattenQuant): what a fast one must give."""

from typing import Unpack

import torch
from jaxtyping import Float, Int8, Integer, UInt8
from torch import Tensor

from protquant.kernels.packing import unpack_nibbles
from protquant.kernels.reference.epilogue import Epilogue, finish
from protquant.kernels.reference.uniform import encode_uniform

__all__ = ["check_linear_flattened", "flattened_codes", "linear_flattened"]


def linear_flattened(
    x: Float[Tensor, "m c"],
    x_scale: float,
    channel: Integer[Tensor, " d"],
    low: Float[Tensor, " d"],
    high: Float[Tensor, " d"],
    weight: Int8[Tensor, "n d"] | UInt8[Tensor, "n half"],
    weight_scale: Float[Tensor, " n"],
    *,
    weight_zero: UInt8[Tensor, " n"] | None = None,
    x_low: int = -128,
    x_high: int = 127,
    **after: Unpack[Epilogue],
) -> Float[Tensor, "m n"] | Int8[Tensor, "m n"]:
    """`residual + gate * activation(x_scale * weight_scale * codes(pieces of x) weight^T + bias)`.

    Parameters
    ----------
    x : Tensor, shape=(m, c), dtype=float16, bfloat16 or float32
        Activations; rows may be strided.
    x_scale : float
        The step of all pieces, positive.
    channel : Tensor, dtype=int, shape=(d,)
        Which channel each piece is of.
    low, high : Tensor, shape=(d,)
        Magnitudes between which the piece lies, 0 or more; infinity for no end.
    weight : Tensor
        Shape (n, d) of int8 codes, or shape (n, ceil(d / 2)) of uint8, packed codes 0 to 15 as of `pack_nibbles`.
    weight_scale : Tensor, shape=(n,)
        One per output channel.
    weight_zero : Tensor, shape=(n,), dtype=uint8
        The codes that mean 0 in a packed weight; None for int8.
    x_low, x_high : int
        The smallest and the largest code of a piece.
    **after
        `Epilogue`: bias, activation, gate, residual, dtype; out_scale, out_zero, out_low, out_high.

    Raises
    ------
    ValueError
        For shapes, dtypes or options that do not fit.
    """
    check_linear_flattened(x, x_scale, channel, low, high, weight, weight_scale, weight_zero, x_low, x_high)
    codes = flattened_codes(x, x_scale, channel, low, high, x_low, x_high)
    steps = weight.double()
    if weight_zero is not None:
        steps = unpack_nibbles(weight, len(channel)).double() - weight_zero.double()[:, None]
    # float64 holds sums of products of codes exactly.
    total = (codes.double() @ steps.T).float()
    return finish(total * (torch.tensor(x_scale, device=x.device) * weight_scale.float()), **after)


def flattened_codes(
    x: Float[Tensor, "m c"],
    x_scale: float,
    channel: Integer[Tensor, " d"],
    low: Float[Tensor, " d"],
    high: Float[Tensor, " d"],
    x_low: int,
    x_high: int,
) -> Int8[Tensor, "m d"]:
    """Codes of the pieces: what channels have between two magnitudes, with their sign, in the type of `x`."""
    repeated, low, high = x.index_select(1, channel), low.to(x.dtype), high.to(x.dtype)
    pieces = repeated.clamp(-high, high) - repeated.clamp(-low, low)
    return encode_uniform(pieces, torch.tensor(x_scale, device=x.device), None, x_low, x_high).to(torch.int8)


def check_linear_flattened(
    x: Tensor,
    x_scale: float,
    channel: Tensor,
    low: Tensor,
    high: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero: Tensor | None,
    x_low: int,
    x_high: int,
) -> None:
    """Raise ValueError where the operands of `linear_flattened` do not fit together."""
    if not x.is_floating_point() or x.ndim != 2:
        raise ValueError(f"x must be a matrix of floats, not {tuple(x.shape)} of {x.dtype}")
    pieces = len(channel)
    for name, tensor in (("low", low), ("high", high)):
        if tuple(tensor.shape) != (pieces,):
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, and there are {pieces} pieces")
    is_packed = weight_zero is not None
    dtype, width = (torch.uint8, -(-pieces // 2)) if is_packed else (torch.int8, pieces)
    if weight.dtype != dtype or weight.ndim != 2 or weight.shape[1] != width:
        raise ValueError(
            f"weight must be a matrix of {dtype} with rows of {width} for {pieces} pieces, not {tuple(weight.shape)} "
            f"of {weight.dtype}: int8, or packed uint8 with weight_zero"
        )
    for name, rows in (("weight_scale", weight_scale), ("weight_zero", weight_zero)):
        if rows is not None and tuple(rows.shape) != (len(weight),):
            raise ValueError(f"{name} has the shape {tuple(rows.shape)}, not ({len(weight)},)")
    if not x_scale > 0:
        raise ValueError(f"x_scale must be positive, not {x_scale}")
    if not -128 <= x_low <= x_high <= 127:
        raise ValueError(f"codes from {x_low} to {x_high} are not in the -128 to 127 of int8")
