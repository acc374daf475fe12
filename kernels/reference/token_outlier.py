"""Tokens with outliers: a vector in few bits, but for its largest magnitudes (the AAQ of LightNobel, 2025).

A token is a vector along the last axis. Its `outliers` largest magnitudes are taken out and kept as 16-bit integers
beside their indices; the others, the inliers, are signed integers of `bits` bits. Both count in the same steps::

    scale, bfloat16 | inliers, bits each, in the order of channels | outliers, 16 bits each | indices

One scale serves both, so an outlier errs by half a step of the inliers at most, as they do themselves, no second scale
is stored, and a product of integers needs no second pass. The scale is the largest inlier's magnitude over the largest
code; should an outlier not fit 16 bits in these steps (4,000 times the inliers at 4 bits, 250 times at 8), it is the
outlier's over 32,000.
"""

from typing import NamedTuple

import torch
from jaxtyping import BFloat16, Float, Int16, Integer
from torch import Tensor

from protquant.kernels.reference.uniform import code_dtype

__all__ = ["OutlierCodes", "decode_token_outlier", "encode_token_outlier", "outlier_index_dtype", "token_scale"]

_LARGEST = 2**15 - 1
# Less than the largest code: to bfloat16 a scale is rounded by up to 1/256 of itself.
_ROOM = 32_000


class OutlierCodes(NamedTuple):
    """Tokens of c channels, k of which are outliers: `codes` are those of the c - k others, in their order."""

    codes: Integer[Tensor, "*tokens inliers"]
    scales: BFloat16[Tensor, "*tokens 1"]
    outliers: Int16[Tensor, "*tokens k"]
    indices: Integer[Tensor, "*tokens k"]


def outlier_index_dtype(channels: int) -> torch.dtype:
    """Return the integers that hold the index of a channel: 8 bits for up to 256 channels."""
    return code_dtype(0, max(channels - 1, 0))


def token_scale(x: Float[Tensor, "*tokens c"], bits: int, outliers: int) -> BFloat16[Tensor, "*tokens 1"]:
    """The step of every token; 1 where there are only zeros, or what float32 flushes to zero."""
    channels = x.shape[-1]
    largest = x.abs().topk(min(outliers + 1, channels), dim=-1).values.float()
    if not channels:
        largest = largest.new_zeros(*x.shape[:-1], 1)
    scale = largest[..., :1] / _ROOM
    if outliers < channels:
        scale = torch.maximum(scale, largest[..., -1:] / (2 ** (bits - 1) - 1))
    return torch.where(scale > torch.finfo(torch.float32).tiny, scale, 1.0).bfloat16()


def encode_token_outlier(
    x: Float[Tensor, "*tokens c"], scales: BFloat16[Tensor, "*tokens 1"], bits: int, outliers: int
) -> OutlierCodes:
    """Codes of `x`, finite; `scales` are those of `token_scale`, or any."""
    channels = x.shape[-1]
    steps = torch.round(x.float() * scales.float().reciprocal())
    indices = x.abs().topk(min(outliers, channels), dim=-1).indices.sort(dim=-1).values
    is_inlier = torch.ones_like(x, dtype=torch.bool).scatter_(-1, indices, False)
    largest = 2 ** (bits - 1) - 1
    inliers = steps[is_inlier].reshape(*x.shape[:-1], channels - indices.shape[-1])
    return OutlierCodes(
        inliers.clamp(-largest, largest).to(code_dtype(-largest, largest)),
        scales,
        steps.gather(-1, indices).clamp(-_LARGEST, _LARGEST).to(torch.int16),
        indices.to(outlier_index_dtype(channels)),
    )


def decode_token_outlier(encoded: OutlierCodes) -> Float[Tensor, "*tokens c"]:
    """Values of `encoded`, float32."""
    codes, scales, outliers, indices = encoded
    # Widths of 8 bits are signed below 128 and unsigned above.
    indices = indices.long()
    steps = scales.new_zeros(*codes.shape[:-1], codes.shape[-1] + indices.shape[-1], dtype=torch.float32)
    is_inlier = torch.ones_like(steps, dtype=torch.bool).scatter_(-1, indices, False)
    steps[is_inlier] = codes.float().flatten()
    steps.scatter_(-1, indices, outliers.float())
    return steps * scales.float()
