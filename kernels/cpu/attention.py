"""Attention on integers that are stored as floats: for small heads, no other product is fast on a CPU."""

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
"""Number of logits to process at a time: 8 MB, which stay in the cache between passes."""
_LARGEST_TOTAL = 2.0**60
"""Limit of the sums of exponentials; its reciprocal is the lower limit. Within them no product overflows."""


def attend_float32(
    qkv: Float[Tensor, "m n"] | UInt8[Tensor, "m n"],
    zeros: tuple[int, int],
    heads: int,
    length: int,
    scale: float,
    bias: Float[Tensor, "h q k"] | None,
    mask: Bool[Tensor, "b k"] | None,
) -> Float[Tensor, "m hd"]:
    """Return the output of torch's fused attention, which computes in float32 and does not store logits.

    Integers below 256 are exact in float32, and so are the sums of their products.

    Parameters
    ----------
    zeros : tuple of int
        Zero points of queries and of values. A zero point of keys shifts all logits of a query by the same amount,
        which does not change the softmax.
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
    # Probabilities add up to 1, so the zero point of the values is subtracted once, from the output.
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
    """Return attention with bfloat16 products, in few passes over logits that stay in the cache.

    bfloat16 holds integers up to 256, so sums of products of codes are exact. Logits, their exponentials, the sums of
    these and the output are rounded to bfloat16, as in a model of that type.

    Parameters
    ----------
    zeros : tuple of int
        Zero points of queries, keys and values.
    scales : tuple of float
        Scales of logits and of values.
    bias : Tensor, shape=(h, q, k)
        Bias of the logits, times log2(e): see `in_bits`.
    space : callable
        Returns a reused buffer of this many bfloat16 elements: new memory costs more time than the products.
    """
    channels = qkv.shape[1] // 3
    out = torch.empty(len(qkv), channels, dtype=torch.bfloat16)
    if len(qkv) == 0:
        return out
    if mask is not None:
        # Rows without a valid key attend to all keys: nothing reads their output.
        mask = mask | ~mask.any(-1, keepdim=True)
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
    """Return the number of sequences to process together."""
    return min(sequences, max(1, _LOGITS // (heads * length * length)))


def space_elements(sequences: int, heads: int, length: int, channels: int) -> int:
    """Return the number of bfloat16 elements that `attend_bfloat16` takes from `space`."""
    # Logits; codes, and queries, keys and values as floats; the output.
    return _together(sequences, heads, length) * length * (heads * length + 7 * channels)


def in_bits(bias: Float[Tensor, "h q k"]) -> BFloat16[Tensor, "h q k"]:
    """Return a bias of logits times log2(e), so that exponentials are powers of 2, which are faster."""
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
    """Return the attention of a few sequences."""
    rows, length, _, heads, _ = qkv.shape
    number = out.numel()
    space, codes, parts, attended = memory.split_with_sizes([len(memory) - 7 * number, 3 * number, 3 * number, number])
    # Subtract zero points before the product: its sums are rounded, and an offset of 128 would cost digits.
    codes, parts = codes.view(qkv.shape).copy_(qkv), parts.view(3, *out.shape)
    torch.sub(codes.permute(2, 0, 3, 1, 4), zeros.view(3, 1, 1, 1, 1), out=parts)
    q, k, v = parts.flatten(1, 2)
    logits = space[: rows * heads * length * length].view(rows * heads, length, length)
    by_head = logits.view(rows, heads, length, length)

    def compute_logits() -> None:
        if bias is not None:
            by_head.copy_(bias)
        torch.baddbmm(logits, q, k.mT, beta=0 if bias is None else 1, alpha=scales[0], out=logits)
        if mask is not None:
            by_head.add_(torch.where(mask, 0.0, MASKED_LOGIT).to(torch.bfloat16)[:, None, None, :])

    compute_logits()
    total = torch.exp2(logits, out=logits).sum(-1, keepdim=True)
    low, high = total.aminmax()
    if not 1 / _LARGEST_TOTAL < low <= high < _LARGEST_TOTAL:
        # Subtracting the largest logit first needs one more pass, so it is done only if a sum is out of range.
        compute_logits()
        torch.softmax(logits.div_(_LOG2E), -1, out=logits)
        total = torch.ones_like(total)
    attended = torch.bmm(logits, v, out=attended.view(v.shape)).view(out.shape)
    torch.mul(attended, (scales[1] / total).view(rows, heads, length, 1), out=out)
