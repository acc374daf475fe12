"""Int8 codes of the rows of a matrix, with one scale for all or one per row (token) taken from the row itself."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int8, Integer
from torch import Tensor

from protquant.kernels.reference.uniform import encode_uniform

__all__ = ["TokenCodes", "check_bits", "check_matrix", "check_scale", "quantize_int8", "quantize_int8_per_token"]

# Affine codes of 8 bits are 0 to 255: int8 holds them with this taken away, from them and from their zero point.
_SHIFT = 128
_TINY = torch.finfo(torch.float32).tiny


class TokenCodes(NamedTuple):
    """Codes with a scale and, where they are affine, a zero point per token: as `linear_int8` reads them."""

    codes: Int8[Tensor, "m c"]
    scales: Float[Tensor, " m"]
    zeros: Integer[Tensor, " m"] | None


def quantize_int8(
    x: Float[Tensor, "m c"],
    scale: Float[Tensor, " 1"],
    zero: Integer[Tensor, " 1"] | None = None,
    low: int = -128,
    high: int = 127,
) -> Int8[Tensor, "m c"]:
    """Codes of `x`, finite, on the grid `(code - zero) * scale`; what lies outside goes to the nearest end.

    Parameters
    ----------
    x : Tensor, shape=(m, c)
        Rows may be strided.
    scale : Tensor of float32, shape=(1,)
    zero : Tensor of int32, shape=(1,), optional
        The code that means 0; None for 0.
    low, high : int
        The smallest and the largest code, -128 at least and 127 at most.

    Raises
    ------
    ValueError
        For shapes, dtypes or codes that do not fit.
    """
    check_matrix(x)
    check_scale(scale, zero, low, high)
    return encode_uniform(x, scale, zero, low, high).to(torch.int8)


def quantize_int8_per_token(
    x: Float[Tensor, "m c"], *, symmetric: bool = True, bits: int = 8, unsigned: bool = False
) -> TokenCodes:
    """Codes of the rows of `x`, finite, in steps that each row itself gives.

    Symmetric: steps of the largest magnitude over 127, codes -127 to 127, no zero points. Affine: 255 steps from the
    smallest to the largest value, a range that is widened to hold 0; codes and zero points are those of 0 to 255 less
    128. A row of nothing but zeros, or of what float32 flushes to zero, has steps of 1.

    Parameters
    ----------
    bits : int
        2 to 8. Fewer than 8 have fewer steps; affine codes are those of 0 to 2^bits - 1 then.
    unsigned : bool
        Let symmetric codes of a matrix without negative values be those of affine rows, which have twice as many: as
        the simulation does. There are zero points then in any case.

    Raises
    ------
    ValueError
        For a shape or dtype that does not fit.
    """
    check_matrix(x)
    check_bits(bits)
    if symmetric and unsigned:
        if bool((x >= 0).all()):
            return quantize_int8_per_token(x, symmetric=False, bits=bits)
        codes, scales, _ = quantize_int8_per_token(x, symmetric=True, bits=bits)
        return TokenCodes(codes, scales, torch.zeros(len(x), dtype=torch.int32, device=x.device))
    most = 2 ** (bits - 1) - 1 if symmetric else 2**bits - 1
    # The zero beside each row widens its range to hold 0.
    lowest, highest = torch.cat((x.double(), x.new_zeros(len(x), 1).double()), dim=1).aminmax(dim=1)
    steps = torch.maximum(-lowest, highest) / most if symmetric else (highest - lowest) / most
    steps = torch.where(steps > _TINY, steps, 1.0)
    scales = steps.float()
    if symmetric:
        return TokenCodes(encode_uniform(x, scales[:, None], None, -most, most), scales, None)
    zeros = torch.round(-lowest / steps).int()
    shift = _SHIFT if bits == 8 else 0
    codes = encode_uniform(x, scales[:, None], zeros[:, None], 0, most).short() - shift
    return TokenCodes(codes.to(torch.int8), scales, zeros - shift)


def check_bits(bits: int) -> None:
    """Raise ValueError unless codes have 2 to 8 bits."""
    if not 2 <= bits <= 8:
        raise ValueError(f"codes have 2 to 8 bits, not {bits}")


def check_matrix(x: Tensor) -> None:
    """Raise ValueError unless `x` is a matrix of floats."""
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"x must be a matrix of floats, not {tuple(x.shape)} of {x.dtype}")


def check_scale(scale: Tensor, zero: Tensor | None, low: int, high: int) -> None:
    """Raise ValueError unless scale and zero point are one each, and codes fit into int8."""
    for name, tensor in (("scale", scale), ("zero", zero)):
        if tensor is not None and tuple(tensor.shape) != (1,):
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, not (1,)")
    if not -128 <= low <= high <= 127:
        raise ValueError(f"codes from {low} to {high} are none of int8")
