"""Layer normalization of a residual that is stored in bytes; the result is int8 codes."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from protquant.kernels.operands import ByteGrid, Codes8, Grid, TokenGrid
from protquant.kernels.reference.piecewise_bytes import decode_tailed_bytes
from protquant.kernels.reference.quantize import quantize

__all__ = ["decode_norm_quantize"]


def decode_norm_quantize(
    codes: UInt8[Tensor, "m c"],
    kept: ByteGrid,
    gain: Float[Tensor, " c"] | None,
    bias: Float[Tensor, " c"] | None,
    eps: float,
    grid: Grid | TokenGrid,
    *,
    normalized: torch.dtype | None = None,
) -> tuple[Codes8, Float[Tensor, "m c"] | None]:
    """Return codes of LayerNorm of the bytes `codes` on the grid `kept`; and normalized floats, if a dtype is given."""
    gain, bias = (None if each is None else each.float() for each in (gain, bias))
    y = F.layer_norm(decode_tailed_bytes(codes, kept), codes.shape[1:], gain, bias, eps)
    return quantize(y, grid), None if normalized is None else y.to(normalized)
