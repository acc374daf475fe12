"""Rounding to integers as torch rounds, half to even, which triton has no word for on all targets."""

import triton
import triton.language as tl

__all__ = ["to_codes"]


@triton.jit
def to_codes(x, inverse_scale, zero, LOW: tl.constexpr, HIGH: tl.constexpr):
    """Codes of float32 `x` as int32, as `encode_uniform` has them: half to even, from `LOW` to `HIGH`.

    `inverse_scale` is the reciprocal of the step, `zero` the code of 0, less than 2^20 in magnitude; both broadcast
    against `x`.
    """
    # Whatever lies beyond is at an end of the grid anyway. It also keeps the product and the sum below apart: fused,
    # they would be rounded once and not twice.
    steps = tl.minimum(tl.maximum(x * inverse_scale, -2097152.0), 2097152.0)
    # Above 2^23 the neighbors of a float32 are a whole unit apart, so that adding 1.5 * 2^23 rounds to integers.
    steps = (steps + 12582912.0) - 12582912.0
    return tl.minimum(tl.maximum(steps.to(tl.int32) + zero, LOW), HIGH)
