"""Attention on integers that are held in floats: a CPU has no other product that is fast on heads so small."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import BFloat16, Bool, Float, UInt8
from torch import Tensor

from protquant.kernels.reference.attention import MASKED_LOGIT

__all__ = ["attend_bfloat16", "attend_float32", "in_bits", "space_elements"]

Space = Callable[[int], BFloat16[Tensor, " n"]]

_LOG2E = 1.4426950408889634
_LOGITS = 2**22
"""That are worked on together: 8 MB, which stay in the cache from one pass over them to the next."""
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
    space: Space,
) -> BFloat16[Tensor, "m hd"]:
    """The same with products of bfloat16, which holds integers up to 256, in few passes over logits in the cache.

    Sums of products are exact; logits, their exponentials, the totals of these and what comes out are rounded to the 8
    bits of bfloat16, as in a model of that type.

    Parameters
    ----------
    zeros : tuple of int
        Codes that mean 0, of queries, keys and values.
    scales : tuple of float
        Of logits, and of values.
    bias : Tensor, shape=(h, q, k)
        Of logits in bits, see `in_bits`.
    space : callable
        Memory for so many elements of bfloat16, as it was before: new memory costs more than the products.
    """
    channels = qkv.shape[1] // 3
    out = torch.empty(len(qkv), channels, dtype=torch.bfloat16)
    if len(qkv) == 0:
        return out
    if mask is not None:
        mask = mask | ~mask.any(-1, keepdim=True)  # What has no key may see all: nobody reads it.
    sequences = len(qkv) // length
    rows = _together(sequences, heads, length)
    memory = space(space_elements(sequences, heads, length, channels))
    for first in range(0, sequences, rows):
        tokens = slice(first * length, (first + rows) * length)
        _attend_some(
            qkv[tokens].view(-1, length, 3, heads, channels // heads),
            torch.tensor(zeros, dtype=torch.bfloat16),
            (scales[0] * _LOG2E, scales[1]),
            bias,
            None if mask is None else mask[first : first + rows],
            memory,
            out[tokens].view(-1, length, heads, channels // heads).transpose(1, 2),
        )
    return out


def _together(sequences: int, heads: int, length: int) -> int:
    """Sequences that are worked on together."""
    return min(sequences, max(1, _LOGITS // (heads * length * length)))


def space_elements(sequences: int, heads: int, length: int, channels: int) -> int:
    """Number of elements of bfloat16 that `attend_bfloat16` asks `space` for."""
    # Logits; codes, and queries, keys and values as floats; what comes out.
    return _together(sequences, heads, length) * length * (heads * length + 7 * channels)


def in_bits(bias: Float[Tensor, "h q k"]) -> BFloat16[Tensor, "h q k"]:
    """A bias of logits times log2(e): exponentials are powers of 2 then, which take less time."""
    return (bias * _LOG2E).to(torch.bfloat16)


def _attend_some(
    qkv: UInt8[Tensor, "b l 3 h d"],
    zeros: BFloat16[Tensor, " 3"],
    scales: tuple[float, float],
    bias: Float[Tensor, "h q k"] | None,
    mask: Bool[Tensor, "b k"] | None,
    memory: BFloat16[Tensor, " n"],
    out: BFloat16[Tensor, "b h l d"],
) -> None:
    """Attention within some sequences."""
    rows, length, _, heads, _ = qkv.shape
    number = out.numel()
    space, codes, parts, attended = memory.split_with_sizes([len(memory) - 7 * number, 3 * number, 3 * number, number])
    # Before the products, whose sums are rounded: a zero point of 128 would take the digits of small ones.
    codes, parts = codes.view(qkv.shape).copy_(qkv), parts.view(3, *out.shape)
    torch.sub(codes.permute(2, 0, 3, 1, 4), zeros.view(3, 1, 1, 1, 1), out=parts)
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
    total = torch.exp2(logits, out=logits).sum(-1, keepdim=True)
    low, high = total.aminmax()
    if not 1 / _LARGEST_TOTAL < low <= high < _LARGEST_TOTAL:
        # Softmax takes off the largest logit first, which is a pass more, and hardly ever needed.
        reckon()
        torch.softmax(logits.div_(_LOG2E), -1, out=logits)
        total = torch.ones_like(total)
    attended = torch.bmm(logits, v, out=attended.view(v.shape)).view(out.shape)
    torch.mul(attended, (scales[1] / total).view(rows, heads, length, 1), out=out)
