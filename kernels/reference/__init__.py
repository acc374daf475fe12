"""Plain torch twins of every kernel: slow, obviously right, the ones that the fast ones are tested against."""

from protquant.kernels.reference.piecewise import (
    PiecewiseCodes,
    Tails,
    decode_tailed,
    decode_two_scale,
    encode_tailed,
    encode_two_scale,
)
from protquant.kernels.reference.uniform import code_dtype, decode_uniform, encode_uniform

__all__ = [
    "PiecewiseCodes",
    "Tails",
    "code_dtype",
    "decode_tailed",
    "decode_two_scale",
    "decode_uniform",
    "encode_tailed",
    "encode_two_scale",
    "encode_uniform",
]
