"""The sums over the third residue of a triangle, channel by channel, on int8 codes."""

import torch
from jaxtyping import Float, Int8, Integer
from torch import Tensor

from protquant.kernels.operands import Direction

__all__ = ["check_triangle_product", "triangle_product"]


def triangle_product(
    left: Int8[Tensor, "c i k"],
    right: Int8[Tensor, "c j k"],
    direction: Direction,
    left_scale: Float[Tensor, "..."],
    right_scale: Float[Tensor, "..."],
    *,
    left_zero: Integer[Tensor, ""] | None = None,
    right_zero: Integer[Tensor, ""] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "i j c"]:
    """Sum over k of `left[i, k] * right[j, k]` or, along incoming edges, of `left[k, i] * right[k, j]`.

    The step between projections and LayerNorm in Algorithms 11 and 12 of Jumper et al. 2021. Products are summed as
    integers, without error (up to 33,000 residues); what follows is float32, rounded to `dtype` at the end.

    Parameters
    ----------
    left, right : Tensor, shape=(c, i, k) and (c, j, k), dtype=int8
        Codes of a channel's pairs of residues; "incoming": shape=(c, k, i) and (c, k, j).
    direction : {"outgoing", "incoming"}
    left_scale, right_scale : Tensor, shape=() or (c,)
        One for all, or one per channel.
    left_zero, right_zero : Tensor of int32, shape=(), optional
        The codes that mean 0; None for 0.
    dtype : torch.dtype
        Of the output. float16 ends at 65,504, which a sum over many residues may pass; bfloat16 and float32 do not.

    Returns
    -------
    Tensor, shape=(i, j, c)
        Channel by channel in memory: whole rows of a tile are written at once, and a LayerNorm that reads a tile of
        pairs finds 16 or more pairs of a channel side by side.

    Raises
    ------
    ValueError
        For shapes or dtypes that do not fit.
    """
    check_triangle_product(left, right, direction, left_scale, right_scale)
    if direction == "incoming":
        left, right = left.transpose(1, 2), right.transpose(1, 2)
    # Sums of products of int8 are far below 2^53: float64 holds them exactly, and has a fast product.
    left_steps = left.double() if left_zero is None else left.double() - left_zero
    right_steps = right.double() if right_zero is None else right.double() - right_zero
    total = left_steps @ right_steps.transpose(1, 2)
    scale = (left_scale.float() * right_scale.float()).expand(len(left))
    product = (total.float() * scale[:, None, None]).to(dtype)
    return product.permute(1, 2, 0)


def check_triangle_product(
    left: Tensor, right: Tensor, direction: str, left_scale: Tensor, right_scale: Tensor
) -> None:
    """Raise ValueError where the operands of `triangle_product` do not fit together."""
    for name, tensor in (("left", left), ("right", right)):
        if tensor.dtype != torch.int8 or tensor.ndim != 3:
            raise ValueError(f"{name} must be (c, i, k) of int8, not {tuple(tensor.shape)} of {tensor.dtype}")
    if direction not in ("outgoing", "incoming"):
        raise ValueError(f"direction {direction!r} is neither 'outgoing' nor 'incoming'")
    summed = 2 if direction == "outgoing" else 1
    if left.shape[0] != right.shape[0] or left.shape[summed] != right.shape[summed]:
        raise ValueError(f"{direction} edges cannot be summed over {tuple(left.shape)} and {tuple(right.shape)}")
    for name, scale in (("left_scale", left_scale), ("right_scale", right_scale)):
        if tuple(scale.shape) not in ((), (1,), (len(left),)):
            raise ValueError(f"{name} has the shape {tuple(scale.shape)}, not () or ({len(left)},)")
