"""Rounding to the nearest code, half to even: torch rounds like this, and triton has no function for it."""

import triton
import triton.language as tl

__all__ = ["nearest", "nearest_code"]


@triton.jit
def nearest(steps, least, most):
    """Round float32 `steps` to integers from `least` to `most`, which are less than 2^22 in magnitude."""
    # Above 2^23 the distance of neighboring floats is 1, so adding 1.5 * 2^23 rounds to integers. Clamp first: this
    # bounds the sum, and prevents its fusion with the product that computed the steps.
    return (tl.minimum(tl.maximum(steps, least), most) + 12582912.0) - 12582912.0


@triton.jit
def nearest_code(x, inverse_scale, zero, LOW: tl.constexpr, HIGH: tl.constexpr):
    """Return int32 codes from `LOW` to `HIGH` of float32 `x`; the zero point is less than 2^21 in magnitude."""
    steps = nearest(x * inverse_scale, (LOW - zero) * 1.0, (HIGH - zero) * 1.0)
    return steps.to(tl.int32) + zero
