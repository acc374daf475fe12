"""Attention on integers that are held in floats: a CPU has no other product that is fast on heads so small."""

import torch
import torch.nn.functional as F
from jaxtyping import BFloat16, Bool, Float, UInt8
from torch import Tensor

from protquant.kernels.reference.attention import MASKED_LOGIT

__all__ = ["attend_bfloat16", "attend_float32"]

_LARGEST_TOTAL = 2.0**60
"""Of exponentials, and its reciprocal the least: neither they nor what they are multiplied with leave the floats."""


def attend_float32(
    qkv: Float[Tensor, "m n"] | UInt8[Tensor, "m n"],
    zeros: tuple[int, int],
    heads: int,
    length: int,
    scale: float,
    bias: Float[Tensor, "h q k"] | None,
    mask: Bool[Tensor, "b k"] | None,
) -> Float[Tensor, "m hd"]:
    """Torch's fused attention: logits and probabilities in float32, never stored.

    Integers below 256 are exact in float32, and so are the sums of their products.

    Parameters
    ----------
    zeros : tuple of int
        Codes that mean 0, of queries and of values. One of the keys would move all logits of a query by as much, which
        softmax does not feel.
    """
    q, k, v = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2)
        for part in qkv.float().unflatten(0, (-1, length)).chunk(3, dim=-1)
    )
    extra = None if bias is None else bias.float()[None]
    if mask is not None:
        penalty = torch.where(mask, 0.0, MASKED_LOGIT)[:, None, None, :]
        extra = penalty if extra is None else extra + penalty
    out = F.scaled_dot_product_attention(q - zeros[0] if zeros[0] else q, k, v, attn_mask=extra, scale=scale)
    # One of the values comes out as it went in, for probabilities add up to 1.
    return out.transpose(1, 2).flatten(0, 1).flatten(1).sub_(zeros[1])


def attend_bfloat16(
    qkv: UInt8[Tensor, "m n"],
    zeros: tuple[int, int, int],
    heads: int,
    length: int,
    scales: tuple[float, float],
    bias: Float[Tensor, "h q k"] | None,
    mask: Bool[Tensor, "b k"] | None,
    space: Tensor,
) -> BFloat16[Tensor, "m hd"]:
    """The same with products of bfloat16, which holds integers up to 256, in few passes over the logits of a tile.

    Sums of products are exact; logits, their exponentials, the totals of these and what comes out are rounded to the 8
    bits of bfloat16, as in a model of that type.

    Parameters
    ----------
    zeros : tuple of int
        Codes that mean 0, of queries, keys and values.
    scales : tuple of float
        Of logits, and of values.
    bias : Tensor, shape=(h, q, k)
        Best in bfloat16: it is that for every sequence else.
    space : Tensor, bfloat16
        Memory for logits, at least `m * heads * length` elements: new memory costs more than the products.
    """
    channels = qkv.shape[1] // 3
    if len(qkv) == 0:
        return torch.empty(0, channels, dtype=torch.bfloat16)
    rows = len(qkv) // length
    if mask is not None:
        mask = mask | ~mask.any(-1, keepdim=True)  # What has no key may see all: nobody reads it.
    parts = torch.empty(3, rows, heads, length, channels // heads, dtype=torch.bfloat16)
    # Before the products, whose sums are rounded: a zero point of 128 would take the digits of small ones.
    by_part = qkv.to(torch.bfloat16).view(rows, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    torch.sub(by_part, torch.tensor(zeros, dtype=torch.bfloat16).view(3, 1, 1, 1, 1), out=parts)
    q, k, v = parts.flatten(1, 2)
    logits = space[: rows * heads * length * length].view(rows * heads, length, length)
    by_head = logits.view(rows, heads, length, length)

    def reckon() -> None:
        if bias is not None:
            by_head.copy_(bias)
        torch.baddbmm(logits, q, k.mT, beta=0 if bias is None else 1, alpha=scales[0], out=logits)
        if mask is not None:
            by_head.add_(torch.where(mask, 0.0, MASKED_LOGIT).to(torch.bfloat16)[:, None, None, :])

    reckon()
    total = torch.exp(logits, out=logits).sum(-1, keepdim=True)
    low, high = total.aminmax()
    if not 1 / _LARGEST_TOTAL < low <= high < _LARGEST_TOTAL:
        # Softmax takes off the largest logit first, which is a pass more, and hardly ever needed.
        reckon()
        torch.softmax(logits, -1, out=logits)
        total = torch.ones_like(total)
    out = torch.bmm(logits, v).mul_(scales[1] / total).view(rows, heads, length, -1)
    return out.transpose(1, 2).reshape(len(qkv), -1)
