"""Tokens with outliers as kernels pass them on: a row of bytes per token, four-bit inliers two to a byte."""

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
    """As `OutlierCodes`, with inliers of 4 bits packed: code + 8, the first of two in the low half of their byte.

    A row of an odd number of them ends in a half byte of 0.
    """

    codes: Int8[Tensor, "m inliers"] | UInt8[Tensor, "m packed"]
    scales: BFloat16[Tensor, "m 1"]
    outliers: Int16[Tensor, "m k"]
    indices: Integer[Tensor, "m k"]


def quantize_token_outlier(x: Float[Tensor, "m c"], bits: int, outliers: int) -> OutlierRows:
    """Codes of the rows of `x`, finite, but for the `outliers` largest magnitudes of each, which keep 16 bits.

    Which of equal magnitudes are outliers is left open; the decoded row is the same either way.

    Parameters
    ----------
    x : Tensor, shape=(m, c)
        Rows may be strided.
    bits : int
        Of an inlier, 4 or 8.
    outliers : int
        How many of a row, at most all.

    Raises
    ------
    ValueError
        For a shape, dtype or width that does not fit.
    """
    check_token_outlier(x, bits, outliers)
    encoded = encode_token_outlier(x, token_scale(x, bits, outliers), bits, outliers)
    codes = encoded.codes
    if bits == 4:
        codes = pack_nibbles(codes + _SHIFT)
    return OutlierRows(codes, encoded.scales, encoded.outliers, encoded.indices)


def dequantize_token_outlier(encoded: OutlierRows, channels: int) -> Float[Tensor, "m c"]:
    """Values of `encoded`, float32, of rows of so many channels."""
    codes, scales, outliers, indices = encoded
    if codes.dtype == torch.uint8:
        codes = unpack_nibbles(codes, channels - indices.shape[1]).char() - _SHIFT
    return decode_token_outlier(OutlierCodes(codes, scales, outliers, indices))


def check_token_outlier(x: Tensor, bits: int, outliers: int) -> None:
    """Raise ValueError where the operands of `quantize_token_outlier` do not fit together."""
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"x must be a matrix of floats, not {tuple(x.shape)} of {x.dtype}")
    if bits not in (4, 8):
        raise ValueError(f"inliers of {bits} bits: kernels have 4 and 8")
    if outliers < 0:
        raise ValueError(f"{outliers} outliers of a token: 0 at least")
