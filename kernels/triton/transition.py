"""The two-layer perceptron of the pair on int8 codes; the hidden layer stays on the chip."""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from protquant.kernels.operands import Codes8, Grid
from protquant.kernels.triton.nearest_code import nearest_code
from protquant.kernels.triton.operands import KernelWeight, check_reads, numbers, with_unit_columns
from protquant.kernels.triton.tiles import blocks_of, target_of
from protquant.kernels.triton.tiles_triangle import TransitionTile
from protquant.kernels.triton.tuned import tuned

__all__ = ["MAX_TRANSITION_CHANNELS", "transition_int8", "transition_int8_kernel"]

# Inputs and outputs of whole rows are in registers.
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
    """Compute a few rows of the output. Pointers that are None at compile time are left out."""
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
        # Codes beyond the last hidden channel do not matter: their weight is 0.
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
    x: Codes8,
    up: KernelWeight,
    hidden: Grid,
    down: KernelWeight,
    *,
    residual: Float[Tensor, "m n"] | None = None,
    dtype: torch.dtype = torch.float32,
    has_zero: bool = True,
    out: Float[Tensor, "m n"] | None = None,
    tile: TransitionTile | None = None,
) -> Float[Tensor, "m n"]:
    """Return `residual + down(codes on hidden of relu(up(x)))`, by one kernel, a few hidden channels at a time.

    It is `protquant.kernels.backend.Backend.perceptron_add_`.

    Parameters
    ----------
    up, down : KernelWeight
        Weights of eight bits, without zero points.
    has_zero : bool
        False if the zero points of `x` are known to be 0: the kernel leaves them out.
    out : Tensor, shape=(m, n), contiguous, optional
        Memory for the output; it may be the residual itself.
    tile : TransitionTile, optional
        By default the tile of the device.

    Raises
    ------
    ValueError
        If operands do not fit, or there are more than `MAX_TRANSITION_CHANNELS` channels: their rows do not fit into
        registers.
    """
    data, (m, k), f, n = with_unit_columns(x.data), x.data.shape, len(up.codes), len(down.codes)
    check_reads(k, up)
    if down.channels != f:
        raise ValueError(f"{f} hidden channels, and a weight that reads {down.channels}")
    if any(weight.kind != "int8" or weight.zero is not None for weight in (up, down)):
        raise ValueError("the layers of a transition are not symmetric weights of eight bits")
    widest = max(k, n)
    if widest > MAX_TRANSITION_CHANNELS:
        raise ValueError(
            f"{widest} channels: rows of more than {MAX_TRANSITION_CHANNELS} do not fit into registers; "
            "call linear_int8 for either layer"
        )
    y = torch.empty((m, n), dtype=dtype, device=data.device) if out is None else out
    if tuple(y.shape) != (m, n) or y.dtype != dtype or not y.is_contiguous():
        raise ValueError(f"out must be ({m}, {n}) of {dtype}, contiguous, not {tuple(y.shape)} of {y.dtype}")
    if y.numel() == 0:
        return y
    residual = None if residual is None else with_unit_columns(residual)
    if tile is None:
        key = "transition_int8" if widest <= 128 else "transition_int8, wide"
        tile = tuned(key, data.device, TransitionTile.of(target_of(data.device), widest))
    scale, zero = numbers(hidden, data.device)
    transition_int8_kernel[(blocks_of(m, tile.rows),)](
        data,
        x.scale,
        x.zero if has_zero else None,
        up.codes,
        up.scale,
        up.sums if has_zero else None,
        up.bias,
        scale,
        scale.reciprocal(),
        torch.zeros((), dtype=torch.int32, device=data.device) if zero is None else zero,
        down.codes,
        down.scale,
        down.sums,
        down.bias,
        residual,
        y,
        m,
        n,
        k,
        f,
        data.stride(0),
        0 if len(x.scale) == 1 else 1,
        0 if residual is None else residual.stride(0),
        LOW=hidden.signed.low,
        HIGH=hidden.signed.high,
        BLOCK_M=tile.rows,
        BLOCK_N=max(32, triton.next_power_of_2(n)),
        BLOCK_K=max(32, triton.next_power_of_2(k)),
        BLOCK_F=tile.hidden,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return y
