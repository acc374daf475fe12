"""Rounding to the nearest code, half to even, as torch rounds and triton has no word for."""

import triton
import triton.language as tl

__all__ = ["nearest", "nearest_code"]


@triton.jit
def nearest(steps, least, most):
    """Integers nearest to float32 `steps`, as float32, from `least` to `most`, less than 2^22 in magnitude."""
    # Above 2^23 the neighbors of a float32 are a whole unit apart, so that adding 1.5 * 2^23 rounds to integers. The
    # limits come first: they bound the sum, and keep it from being fused with a product that made the steps.
    return (tl.minimum(tl.maximum(steps, least), most) + 12582912.0) - 12582912.0


@triton.jit
def nearest_code(x, inverse_scale, zero, LOW: tl.constexpr, HIGH: tl.constexpr):
    """Codes from `LOW` to `HIGH`, int32, of float32 `x`; `zero`, the code of 0, is less than 2^21 in magnitude."""
    steps = nearest(x * inverse_scale, (LOW - zero) * 1.0, (HIGH - zero) * 1.0)
    return steps.to(tl.int32) + zero
