"""The definition of every operation in plain torch, slow and simple; tests compare the fast kernels with it."""

from protquant.kernels.reference.dint import decode_dint, dint_levels, encode_dint
from protquant.kernels.reference.float8 import decode_float8, encode_float8
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
from protquant.kernels.reference.uniform import (
    affine_grid,
    code_dtype,
    decode_uniform,
    encode_uniform,
    positive_scale,
    uniform_grid,
)

__all__ = [
    "OutlierCodes",
    "PiecewiseCodes",
    "Tails",
    "affine_grid",
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
    "outlier_index_dtype",
    "positive_scale",
    "token_scale",
    "uniform_grid",
]
