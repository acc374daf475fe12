"""Layer normalization whose result goes on as int8 codes, of floats or of a residual that is kept in bytes."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8, Integer, UInt8
from torch import Tensor

from protquant.kernels.operands import ByteGrid
from protquant.kernels.reference.piecewise_bytes import decode_tailed_bytes
from protquant.kernels.reference.quantize import (
    TokenCodes,
    check_matrix,
    check_scale,
    quantize_int8,
    quantize_int8_per_token,
)

__all__ = [
    "check_bytes",
    "check_norm",
    "decode_norm_quantize",
    "decode_norm_quantize_per_token",
    "layer_norm_quantize",
    "layer_norm_quantize_per_token",
]


def layer_norm_quantize(
    x: Float[Tensor, "m c"],
    gain: Float[Tensor, " c"] | None,
    bias: Float[Tensor, " c"] | None,
    eps: float,
    scale: Float[Tensor, " 1"],
    zero: Integer[Tensor, " 1"] | None = None,
    low: int = -128,
    high: int = 127,
) -> Int8[Tensor, "m c"]:
    """Codes of `gain * (x - mean) / sqrt(variance + eps) + bias`, float32, with one scale for all.

    Parameters
    ----------
    x : Tensor, shape=(m, c)
        Finite values; rows may be strided.
    gain, bias : Tensor, shape=(c,), optional
        None for 1 and 0.
    eps : float
    scale, zero, low, high
        As of `quantize_int8`.

    Raises
    ------
    ValueError
        For shapes, dtypes or codes that do not fit.
    """
    check_scale(scale, zero, low, high)
    return quantize_int8(_normalized(x, gain, bias, eps), scale, zero, low, high)


def layer_norm_quantize_per_token(
    x: Float[Tensor, "m c"],
    gain: Float[Tensor, " c"] | None,
    bias: Float[Tensor, " c"] | None,
    eps: float,
    *,
    symmetric: bool = True,
    bits: int = 8,
    unsigned: bool = False,
) -> TokenCodes:
    """As `layer_norm_quantize`, with scales that the normalized rows give, as in `quantize_int8_per_token`."""
    normalized = _normalized(x, gain, bias, eps)
    return quantize_int8_per_token(normalized, symmetric=symmetric, bits=bits, unsigned=unsigned)


def decode_norm_quantize(
    codes: UInt8[Tensor, "m c"],
    grid: ByteGrid,
    gain: Float[Tensor, " c"] | None,
    bias: Float[Tensor, " c"] | None,
    eps: float,
    scale: Float[Tensor, " 1"],
    zero: Integer[Tensor, " 1"] | None = None,
    low: int = -128,
    high: int = 127,
    *,
    normalized: torch.dtype | None = None,
) -> tuple[Int8[Tensor, "m c"], Float[Tensor, "m c"] | None]:
    """As `layer_norm_quantize`, of the values of `codes` on `grid`; second, the normalized floats if a dtype is given.

    Raises
    ------
    ValueError
        For shapes, dtypes or codes that do not fit.
    """
    check_bytes(codes)
    check_scale(scale, zero, low, high)
    y = _normalized(decode_tailed_bytes(codes, grid), gain, bias, eps)
    return quantize_int8(y, scale, zero, low, high), None if normalized is None else y.to(normalized)


def decode_norm_quantize_per_token(
    codes: UInt8[Tensor, "m c"],
    grid: ByteGrid,
    gain: Float[Tensor, " c"] | None,
    bias: Float[Tensor, " c"] | None,
    eps: float,
    *,
    symmetric: bool = True,
    normalized: torch.dtype | None = None,
) -> tuple[TokenCodes, Float[Tensor, "m c"] | None]:
    """As `decode_norm_quantize`, with scales that the normalized rows give, as in `quantize_int8_per_token`."""
    check_bytes(codes)
    y = _normalized(decode_tailed_bytes(codes, grid), gain, bias, eps)
    return quantize_int8_per_token(y, symmetric=symmetric), None if normalized is None else y.to(normalized)


def _normalized(x: Tensor, gain: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    check_matrix(x)
    check_norm(x, gain, bias)
    gain, bias = (None if each is None else each.float() for each in (gain, bias))
    return F.layer_norm(x.float(), (x.shape[1],), gain, bias, eps)


def check_bytes(codes: Tensor) -> None:
    """Raise ValueError unless `codes` is a matrix of bytes."""
    if codes.ndim != 2 or codes.dtype != torch.uint8:
        raise ValueError(f"codes must be a matrix of uint8, not {tuple(codes.shape)} of {codes.dtype}")


def check_norm(x: Tensor, gain: Tensor | None, bias: Tensor | None) -> None:
    """Raise ValueError unless there are channels, and as many gains and biases."""
    channels = x.shape[1]
    if channels == 0:
        raise ValueError("rows of no channels have no mean")
    for name, tensor in (("gain", gain), ("bias", bias)):
        if tensor is not None and tuple(tensor.shape) != (channels,):
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, and rows have {channels} channels")
