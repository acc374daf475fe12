"""Reading four-bit codes inside kernels."""

import triton
import triton.language as tl

__all__ = ["load_nibbles", "load_weight_steps", "steps_of"]


@triton.jit
def load_nibbles(packed_ptr, rows, row_mask, stride, start, end, BLOCK_K: tl.constexpr):
    """Codes of the channels `start`, which is even, to `end`, in `BLOCK_K` columns: the even ones, and the odd ones.

    Two tensors of int8, of `BLOCK_K / 2` columns each. What is beyond `end` may have any code.
    """
    pairs = tl.arange(0, BLOCK_K // 2)
    packed = tl.load(
        packed_ptr + rows[:, None] * stride + (start // 2 + pairs)[None, :],
        mask=row_mask[:, None] & (start + 2 * pairs < end)[None, :],
        other=0,
    )
    return (packed & 15).to(tl.int8), (packed >> 4).to(tl.int8)


@triton.jit
def steps_of(codes, zero, DINT: tl.constexpr):
    """Steps from 0 of codes by output channel and channel; of dINT, half steps."""
    steps = codes - zero[:, None]
    if DINT:
        # Codes 14 and 15 are half a step to either side of 0.
        steps = tl.where(codes < 14, 2 * steps, 2 * codes - 29)
    return steps


@triton.jit
def load_weight_steps(
    weight_ptr, columns, column_mask, stride, zero, start, end, DINT: tl.constexpr, BLOCK_K: tl.constexpr
):
    """How many steps (of dINT: half steps) weights are from 0, int8, by output channel and channel.

    `zero` holds the codes that mean 0, int8, by output channel. What is beyond `end` may be anything.
    """
    even, odd = load_nibbles(weight_ptr, columns, column_mask, stride, start, end, BLOCK_K)
    return tl.interleave(steps_of(even, zero, DINT), steps_of(odd, zero, DINT))
