"""The two-layer perceptron of the pair on int8 codes: the hidden layer stays on the chip."""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int8, Integer
from torch import Tensor

from protquant.kernels.reference.projection import Int8Projection
from protquant.kernels.reference.transition import check_transition_int8
from protquant.kernels.triton.nearest_code import nearest_code
from protquant.kernels.triton.tiles import blocks_of, target_of
from protquant.kernels.triton.tiles_triangle import TransitionTile
from protquant.kernels.triton.tuned import tuned

__all__ = ["MAX_TRANSITION_CHANNELS", "transition_int8", "transition_int8_kernel"]

# Rows lie in registers whole, coming and going.
MAX_TRANSITION_CHANNELS = 256


@triton.jit
def transition_int8_kernel(
    x_ptr,
    x_scale_ptr,
    x_zero_ptr,
    up_ptr,
    up_scale_ptr,
    up_sum_ptr,
    up_bias_ptr,
    hidden_scale_ptr,
    hidden_inverse_ptr,
    hidden_zero_ptr,
    down_ptr,
    down_scale_ptr,
    down_sum_ptr,
    down_bias_ptr,
    residual_ptr,
    y_ptr,
    M,
    N,
    K,
    F,
    x_stride,
    scale_stride,
    residual_stride,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    """Some rows of the output; pointers that are None at compile time are left out."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_mask = rows < M
    channels, columns = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_N)
    channel_mask, column_mask = channels < K, columns < N
    x = tl.load(
        x_ptr + rows[:, None] * x_stride + channels[None, :], mask=row_mask[:, None] & channel_mask[None, :], other=0
    )
    x_scale = tl.load(x_scale_ptr + rows * scale_stride, mask=row_mask, other=0.0)
    if x_zero_ptr is not None:
        x_zero = tl.load(x_zero_ptr + rows * scale_stride, mask=row_mask, other=0)
    inverse = tl.load(hidden_inverse_ptr)
    hidden_zero = tl.load(hidden_zero_ptr)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.int32)
    for start in range(0, F, BLOCK_F):
        hidden = start + tl.arange(0, BLOCK_F)
        hidden_mask = hidden < F
        up = tl.load(
            up_ptr + hidden[None, :] * K + channels[:, None],
            mask=hidden_mask[None, :] & channel_mask[:, None],
            other=0,
        )
        sums = tl.dot(x, up, out_dtype=tl.int32)
        if x_zero_ptr is not None:
            sums -= x_zero[:, None] * tl.load(up_sum_ptr + hidden, mask=hidden_mask, other=0)[None, :]
        up_scale = tl.load(up_scale_ptr + hidden, mask=hidden_mask, other=0.0)
        values = sums.to(tl.float32) * (x_scale[:, None] * up_scale[None, :])
        if up_bias_ptr is not None:
            values += tl.load(up_bias_ptr + hidden, mask=hidden_mask, other=0.0).to(tl.float32)[None, :]
        codes = nearest_code(tl.maximum(values, 0.0), inverse, hidden_zero, LOW, HIGH).to(tl.int8)
        # Beyond the last hidden channel the weight is 0, whatever the code.
        down = tl.load(
            down_ptr + columns[None, :] * F + hidden[:, None],
            mask=column_mask[None, :] & hidden_mask[:, None],
            other=0,
        )
        total = tl.dot(codes, down, total, out_dtype=tl.int32)
    total -= hidden_zero * tl.load(down_sum_ptr + columns, mask=column_mask, other=0)[None, :]
    down_scale = tl.load(down_scale_ptr + columns, mask=column_mask, other=0.0)
    y = total.to(tl.float32) * (tl.load(hidden_scale_ptr) * down_scale)[None, :]
    if down_bias_ptr is not None:
        y += tl.load(down_bias_ptr + columns, mask=column_mask, other=0.0).to(tl.float32)[None, :]
    mask = row_mask[:, None] & column_mask[None, :]
    if residual_ptr is not None:
        y += tl.load(residual_ptr + rows[:, None] * residual_stride + columns[None, :], mask=mask).to(tl.float32)
    tl.store(y_ptr + rows[:, None] * N + columns[None, :], y.to(y_ptr.dtype.element_ty), mask=mask)


def transition_int8(
    x: Int8[Tensor, "m k"],
    x_scale: Float[Tensor, " s"],
    up: Int8Projection,
    hidden_scale: Float[Tensor, ""],
    down: Int8Projection,
    *,
    x_zero: Integer[Tensor, " s"] | None = None,
    hidden_zero: Integer[Tensor, ""] | None = None,
    out_low: int = -128,
    out_high: int = 127,
    residual: Float[Tensor, "m n"] | None = None,
    dtype: torch.dtype = torch.float32,
    out: Float[Tensor, "m n"] | None = None,
    tile: TransitionTile | None = None,
) -> Float[Tensor, "m n"]:
    """As `protquant.kernels.reference.transition_int8`, in one kernel, a chunk of hidden channels after another.

    Parameters
    ----------
    out : Tensor, shape=(m, n), contiguous, optional
        Where to write; it may be the residual itself.
    tile : TransitionTile, optional
        By default that of the device.

    Raises
    ------
    ValueError
        As the reference, and for more than `MAX_TRANSITION_CHANNELS` channels, whose rows do not fit into registers.
    """
    check_transition_int8(x, x_scale, up, hidden_scale, down, x_zero, out_low, out_high)
    if x_zero is not None and len(x_zero) != len(x_scale):
        raise ValueError(f"{len(x_scale)} scales and {len(x_zero)} zero points: give as many of one as of the other")
    (m, k), f, n = x.shape, len(up.weight), len(down.weight)
    widest = max(k, n)
    if widest > MAX_TRANSITION_CHANNELS:
        raise ValueError(
            f"{widest} channels: rows of more than {MAX_TRANSITION_CHANNELS} do not fit into registers; "
            "call linear_int8 for either layer"
        )
    y = torch.empty((m, n), dtype=dtype, device=x.device) if out is None else out
    if tuple(y.shape) != (m, n) or y.dtype != dtype or not y.is_contiguous():
        raise ValueError(f"out must be ({m}, {n}) of {dtype}, contiguous, not {tuple(y.shape)} of {y.dtype}")
    if y.numel() == 0:
        return y
    x = x if x.stride(1) == 1 else x.contiguous()
    residual = residual if residual is None or residual.stride(1) == 1 else residual.contiguous()
    if tile is None:
        key = "transition_int8" if widest <= 128 else "transition_int8, wide"
        tile = tuned(key, x.device, TransitionTile.of(target_of(x.device), widest))
    hidden_scale = hidden_scale.float()
    zero = torch.zeros((), dtype=torch.int32, device=x.device) if hidden_zero is None else hidden_zero.int()
    transition_int8_kernel[(blocks_of(m, tile.rows),)](
        x,
        x_scale.contiguous(),
        None if x_zero is None else x_zero.int().contiguous(),
        up.weight.contiguous(),
        up.scale.contiguous(),
        None if x_zero is None else up.sums(),
        up.bias,
        hidden_scale,
        hidden_scale.reciprocal(),
        zero,
        down.weight.contiguous(),
        down.scale.contiguous(),
        down.sums(),
        down.bias,
        residual,
        y,
        m,
        n,
        k,
        f,
        x.stride(0),
        0 if len(x_scale) == 1 else 1,
        0 if residual is None else residual.stride(0),
        LOW=out_low,
        HIGH=out_high,
        BLOCK_M=tile.rows,
        BLOCK_N=max(32, triton.next_power_of_2(n)),
        BLOCK_K=max(32, triton.next_power_of_2(k)),
        BLOCK_F=tile.hidden,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return y
