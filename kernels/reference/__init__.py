"""Plain torch twins of every kernel: slow, obviously right, the ones that the fast ones are tested against."""

from protquant.kernels.reference.dint import decode_dint, dint_levels, encode_dint
from protquant.kernels.reference.float8 import decode_float8, encode_float8
from protquant.kernels.reference.linear import linear_int8
from protquant.kernels.reference.linear_flattened import linear_flattened
from protquant.kernels.reference.linear_int4 import linear_int4
from protquant.kernels.reference.piecewise import (
    PiecewiseCodes,
    Tails,
    decode_tailed,
    decode_two_scale,
    encode_tailed,
    encode_two_scale,
)
from protquant.kernels.reference.token_outlier import (
    OutlierCodes,
    decode_token_outlier,
    encode_token_outlier,
    outlier_index_dtype,
    token_scale,
)
from protquant.kernels.reference.uniform import code_dtype, decode_uniform, encode_uniform

__all__ = [
    "OutlierCodes",
    "PiecewiseCodes",
    "Tails",
    "code_dtype",
    "decode_dint",
    "decode_float8",
    "decode_tailed",
    "decode_token_outlier",
    "decode_two_scale",
    "decode_uniform",
    "dint_levels",
    "encode_dint",
    "encode_float8",
    "encode_tailed",
    "encode_token_outlier",
    "encode_two_scale",
    "encode_uniform",
    "linear_flattened",
    "linear_int4",
    "linear_int8",
    "outlier_index_dtype",
    "token_scale",
]
