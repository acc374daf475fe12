"""Tokens with outliers in the layout of kernels: a row of bytes for each token, with two four-bit inliers in a byte."""

from typing import NamedTuple

import torch
from jaxtyping import BFloat16, Float, Int8, Int16, Integer, UInt8
from torch import Tensor

from protquant.kernels.packing import pack_nibbles, unpack_nibbles
from protquant.kernels.reference.token_outlier import (
    OutlierCodes,
    decode_token_outlier,
    encode_token_outlier,
    token_scale,
)

__all__ = ["OutlierRows", "check_token_outlier", "dequantize_token_outlier", "quantize_token_outlier"]

# Signed codes of 4 bits, -7 to 7, are packed as 1 to 15.
_SHIFT = 8


class OutlierRows(NamedTuple):
    """`OutlierCodes` with packed 4-bit inliers: code + 8, with the first of two in the low half of their byte.

    A half byte of 0 completes a row with an odd number of inliers.
    """

    codes: Int8[Tensor, "m inliers"] | UInt8[Tensor, "m packed"]
    scales: BFloat16[Tensor, "m 1"]
    outliers: Int16[Tensor, "m k"]
    indices: Integer[Tensor, "m k"]


def quantize_token_outlier(x: Float[Tensor, "m c"], bits: int, outliers: int) -> OutlierRows:
    """Return codes of the rows of `x`, which is finite; the `outliers` largest magnitudes of a row get 16 bits.

    Among equal magnitudes, any may be the outliers; the decoded row is the same.

    Parameters
    ----------
    x : Tensor, shape=(m, c)
        Rows may be strided.
    bits : int
        Bits of an inlier, 4 or 8.
    outliers : int
        Number of outliers of a row, at most all of it.

    Raises
    ------
    ValueError
        If a shape, dtype or width does not fit.
    """
    check_token_outlier(x, bits, outliers)
    encoded = encode_token_outlier(x, token_scale(x, bits, outliers), bits, outliers)
    codes = encoded.codes
    if bits == 4:
        codes = pack_nibbles(codes + _SHIFT)
    return OutlierRows(codes, encoded.scales, encoded.outliers, encoded.indices)


def dequantize_token_outlier(encoded: OutlierRows, channels: int) -> Float[Tensor, "m c"]:
    """Return the float32 values of `encoded`, with rows of `channels` channels."""
    codes, scales, outliers, indices = encoded
    if codes.dtype == torch.uint8:
        codes = unpack_nibbles(codes, channels - indices.shape[1]).char() - _SHIFT
    return decode_token_outlier(OutlierCodes(codes, scales, outliers, indices))


def check_token_outlier(x: Tensor, bits: int, outliers: int) -> None:
    """Raise ValueError if the operands of `quantize_token_outlier` do not fit together."""
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"x must be a matrix of floats, not {tuple(x.shape)} of {x.dtype}")
    if bits not in (4, 8):
        raise ValueError(f"inliers of {bits} bits: kernels have 4 and 8")
    if outliers < 0:
        raise ValueError(f"{outliers} outliers of a token: 0 at least")
