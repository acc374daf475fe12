"""Reading four-bit codes inside kernels."""

import triton
import triton.language as tl

__all__ = ["load_nibbles", "load_weight_steps", "steps_of"]


@triton.jit
def load_nibbles(packed_ptr, rows, row_mask, stride, start, end, BLOCK_K: tl.constexpr):
    """Load codes of `BLOCK_K` channels from the even channel `start`: those of even and those of odd channels.

    Both results are int8, with `BLOCK_K / 2` columns. Channels from `end` on may have any code.
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
    """Return steps from 0 (half steps for dINT) of codes by output channel and channel."""
    steps = codes - zero[:, None]
    if DINT:
        # Codes 14 and 15 are minus and plus half a step.
        steps = tl.where(codes < 14, 2 * steps, 2 * codes - 29)
    return steps


@triton.jit
def load_weight_steps(
    weight_ptr, columns, column_mask, stride, zero, start, end, DINT: tl.constexpr, BLOCK_K: tl.constexpr
):
    """Load int8 steps from 0 (half steps for dINT) of the weight, by output channel and channel.

    `zero` has the int8 code that means 0 for each output channel. Channels from `end` on may have any steps.
    """
    even, odd = load_nibbles(weight_ptr, columns, column_mask, stride, start, end, BLOCK_K)
    return tl.interleave(steps_of(even, zero, DINT), steps_of(odd, zero, DINT))
