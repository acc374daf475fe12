"""A projection times the sigmoid of another, quantized: what triangle multiplication multiplies."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int8, Integer
from torch import Tensor

from protquant.kernels.reference.linear import check_linear_int8, linear_int8
from protquant.kernels.reference.projection import Int8Projection
from protquant.kernels.reference.uniform import encode_uniform

__all__ = ["GatedLayout", "check_gated_projection", "gated_projection"]

# "rows": (m, n), a row's channels side by side; "channels": (n, m), a channel's rows side by side.
GatedLayout = Literal["rows", "channels"]


def gated_projection(
    x: Int8[Tensor, "m k"],
    x_scale: Float[Tensor, " s"],
    proj: Int8Projection,
    gate: Int8Projection,
    out_scale: Float[Tensor, "..."],
    *,
    x_zero: Integer[Tensor, " s"] | None = None,
    mask: Bool[Tensor, " m"] | None = None,
    out_zero: Integer[Tensor, ""] | None = None,
    out_low: int = -128,
    out_high: int = 127,
    out_layout: GatedLayout = "rows",
) -> Int8[Tensor, "m n"] | Int8[Tensor, "n m"]:
    """Codes of `sigmoid(gate(x)) * proj(x) * mask`, the operands of Algorithms 11 and 12 of Jumper et al. 2021.

    Parameters
    ----------
    x : Tensor, shape=(m, k), dtype=int8
        Codes of activations; rows may be strided.
    x_scale : Tensor, shape=(m,) or (1,)
        One per row or one for all.
    proj, gate : Int8Projection
        Of n output channels each. Stacked weights of several operands give all of them in one call.
    out_scale : Tensor, shape=() or (n,)
        Distance of two codes of the output, one for all channels or one per channel.
    x_zero : Tensor of int32, shape as of x_scale, optional
        The codes of `x` that mean 0; None for 0.
    mask : Tensor of bool, shape=(m,), optional
        Where it is False the output is the code that means 0.
    out_zero : Tensor of int32, shape=(), optional
        The output's code that means 0; None for 0.
    out_low, out_high : int
        The smallest and the largest code of the output, within -128 to 127.
    out_layout : {"rows", "channels"}
        (m, n), or (n, m): with m = i * k, the operand (n, i, k) of a triangle product.

    Raises
    ------
    ValueError
        For shapes, dtypes or codes that do not fit.
    """
    check_gated_projection(x, x_scale, proj, gate, out_scale, x_zero, mask, out_low, out_high, out_layout)
    projected = linear_int8(x, x_scale, proj.weight, proj.scale, x_zero=x_zero, bias=proj.bias)
    opening = linear_int8(x, x_scale, gate.weight, gate.scale, x_zero=x_zero, bias=gate.bias).sigmoid()
    gated = opening * projected
    if mask is not None:
        gated = gated * mask[:, None]
    codes = encode_uniform(gated, out_scale.float(), out_zero, out_low, out_high).to(torch.int8)
    return codes if out_layout == "rows" else codes.T.contiguous()


def check_gated_projection(
    x: Tensor,
    x_scale: Tensor,
    proj: Int8Projection,
    gate: Int8Projection,
    out_scale: Tensor,
    x_zero: Tensor | None,
    mask: Tensor | None,
    out_low: int,
    out_high: int,
    out_layout: str,
) -> None:
    """Raise ValueError where the operands of `gated_projection` do not fit together."""
    for projection in (proj, gate):
        check_linear_int8(x, x_scale, projection.weight, projection.scale, x_zero)
    n = len(proj.weight)
    if len(gate.weight) != n:
        raise ValueError(f"{n} channels are projected, and {len(gate.weight)} gated")
    if tuple(out_scale.shape) not in ((), (1,), (n,)):
        raise ValueError(f"{n} output channels have {tuple(out_scale.shape)} scales of the output")
    if mask is not None and (tuple(mask.shape) != (len(x),) or mask.dtype != torch.bool):
        raise ValueError(f"the mask of {len(x)} rows is {tuple(mask.shape)} of {mask.dtype}, not bool")
    if not -128 <= out_low <= out_high <= 127:
        raise ValueError(f"codes from {out_low} to {out_high} are not codes of int8")
    if out_layout not in ("rows", "channels"):
        raise ValueError(f"out_layout {out_layout!r} is neither 'rows' nor 'channels'")
