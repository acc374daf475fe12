"""Tokens in few bits, except for their largest magnitudes, the outliers (the AAQ of LightNobel, 2025).

A token is a vector along the last axis. The `outliers` elements of largest magnitude are 16-bit integers, stored with
their indices; the others, the inliers, are signed integers of `bits` bits. All have the same scale::

    scale, bfloat16 | inliers, bits each, in the order of channels | outliers, 16 bits each | indices

With one scale, the error of an outlier is at most half a step of the inliers, and a product of integers needs one pass.
The scale is the largest magnitude of the inliers divided by the largest code. If an outlier then does not fit into 16
bits (4,000 times the inliers at 4 bits, 250 times at 8), the scale is the outlier's magnitude divided by 32,000.
"""

from typing import NamedTuple

import torch
from jaxtyping import BFloat16, Float, Int16, Integer
from torch import Tensor

from protquant.kernels.reference.uniform import code_dtype

__all__ = ["OutlierCodes", "decode_token_outlier", "encode_token_outlier", "outlier_index_dtype", "token_scale"]

_LARGEST = 2**15 - 1
# Less than the largest code: rounding to bfloat16 changes a scale by up to 1/256 of itself.
_ROOM = 32_000


class OutlierCodes(NamedTuple):
    """Tokens of c channels, k of which are outliers; `codes` has the other c - k channels in their order."""

    codes: Integer[Tensor, "*tokens inliers"]
    scales: BFloat16[Tensor, "*tokens 1"]
    outliers: Int16[Tensor, "*tokens k"]
    indices: Integer[Tensor, "*tokens k"]


def outlier_index_dtype(channels: int) -> torch.dtype:
    """Return the integer type for the index of a channel: 8 bits for up to 256 channels."""
    return code_dtype(0, max(channels - 1, 0))


def token_scale(x: Float[Tensor, "*tokens c"], bits: int, outliers: int) -> BFloat16[Tensor, "*tokens 1"]:
    """Return the step of every token; 1 if all values are zeros, or so small that float32 flushes them to zero."""
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
    """Return codes of `x`, which is finite, with the given scales, such as those of `token_scale`."""
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
    """Return the float32 values of `encoded`."""
    codes, scales, outliers, indices = encoded
    # Scattering needs indices of 64 bits.
    indices = indices.long()
    steps = scales.new_zeros(*codes.shape[:-1], codes.shape[-1] + indices.shape[-1], dtype=torch.float32)
    is_inlier = torch.ones_like(steps, dtype=torch.bool).scatter_(-1, indices, False)
    steps[is_inlier] = codes.float().flatten()
    steps.scatter_(-1, indices, outliers.float())
    return steps * scales.float()
