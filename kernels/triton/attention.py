"""Attention on int8 codes with an online softmax, which does not store logits."""

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int8, Integer
from torch import Tensor

from protquant.kernels.reference.attention import MASKED_LOGIT
from protquant.kernels.triton.tiles import blocks_of, target_of
from protquant.kernels.triton.tiles_triangle import AttentionTile
from protquant.kernels.triton.tuned import tuned

__all__ = ["attention_int8", "attention_int8_kernel", "channel_block", "multiply_keys", "multiply_values"]

_LOG2E = tl.constexpr(1.4426950408889634)
_MASKED = tl.constexpr(MASKED_LOGIT * 1.4426950408889634)


@triton.jit
def multiply_keys(q, k, zeros_of_q, q_zero_ptr, k_zero_ptr):
    """Return sums over channels of (q - q_zero) (k - k_zero), int32; `zeros_of_q` is the term with `k_zero`."""
    products = tl.dot(q, k, out_dtype=tl.int32)
    if q_zero_ptr is not None:
        products -= (tl.sum(k.to(tl.int32), 0) * tl.load(q_zero_ptr))[None, :]
    if k_zero_ptr is not None:
        products -= zeros_of_q[:, None]
    return products


@triton.jit
def multiply_values(weights, v, v_zero_ptr):
    """Return float32 sums over keys of weights, 0 to 1, times (v - v_zero), and the weights rounded to float16."""
    values = v.to(tl.float16)  # exact, also after the zero point is subtracted
    if v_zero_ptr is not None:
        values -= tl.load(v_zero_ptr).to(tl.float16)
    half = weights.to(tl.float16)
    return tl.dot(half, values), half.to(tl.float32)


@triton.jit
def load_codes(places, there, ALL: tl.constexpr):
    """Load codes at `places`, and 0 where `there` is False; the mask is skipped when `ALL` is True."""
    if ALL:
        return tl.load(places)
    return tl.load(places, mask=there, other=0)


@triton.jit
def bias_and_mask(logits, bias_places, valid_places, column_mask, IS_LAST: tl.constexpr):
    """Return logits, times log2(e), with the bias added and invalid keys masked; bias and mask may be None."""
    if bias_places is not None:
        bias = load_codes(bias_places, column_mask[None, :], not IS_LAST)
        logits = tl.maximum(logits + bias.to(tl.float32) * _LOG2E, _MASKED)
    if valid_places is not None:
        valid = tl.load(valid_places, mask=column_mask, other=0)
        logits = tl.where(valid[None, :] != 0, logits, _MASKED)
    if IS_LAST:
        logits = tl.where(column_mask[None, :], logits, -float("inf"))
    return logits


@triton.jit
def meet_values(largest, total, y, logits, v, v_scale, v_zero_ptr):
    """Update the largest logits, the sums of weights and the sums of weighted values with a block of keys.

    Weights are relative to the largest logit of the block; then all sums are rescaled to the largest logit so far. If
    `v_scale` is not None, the scale of a value multiplies the weight of its key, because the values are integers.
    """
    block_largest = tl.max(logits, 1)
    weights = tl.exp2(logits - block_largest[:, None])
    new_largest = tl.maximum(largest, block_largest)
    before = tl.exp2(largest - new_largest)
    here = tl.exp2(block_largest - new_largest)
    if v_scale is not None:
        weights *= v_scale[None, :]
        peak = tl.max(weights, 1)
        weights *= (1.0 / peak)[:, None]
        here *= peak
    change, weights = multiply_values(weights, v, v_zero_ptr)
    # Sum the rounded weights, which were multiplied, so that the mean of equal values is exact.
    if v_scale is not None:
        weights *= (1.0 / v_scale)[None, :]
    return new_largest, total * before + tl.sum(weights, 1) * here, y * before[:, None] + change * here[:, None]


@triton.jit
def attention_int8_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    q_scale_ptr,
    k_scale_ptr,
    v_scale_ptr,
    q_zero_ptr,
    k_zero_ptr,
    v_zero_ptr,
    bias_ptr,
    mask_ptr,
    y_ptr,
    logit_scale,
    heads,
    queries,
    keys,
    q_batch_stride,
    q_head_stride,
    q_stride,
    k_batch_stride,
    k_head_stride,
    k_stride,
    v_batch_stride,
    v_head_stride,
    v_stride,
    q_scale_batch_stride,
    q_scale_head_stride,
    q_scale_stride,
    k_scale_batch_stride,
    k_scale_head_stride,
    k_scale_stride,
    v_scale_batch_stride,
    v_scale_head_stride,
    v_scale_stride,
    bias_batch_stride,
    bias_head_stride,
    bias_query_stride,
    bias_key_stride,
    mask_batch_stride,
    mask_stride,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    KEY_SCALES: tl.constexpr,
    VALUE_SCALES: tl.constexpr,
):
    """Compute one block of queries of one head. Pointers that are None at compile time are left out.

    KEY_SCALES, VALUE_SCALES: whether keys, and values, have a scale per token. Logits are multiplied by log2(e).
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(queries, BLOCK_Q)
    batch = (program // blocks // heads).to(tl.int64)
    head = (program // blocks % heads).to(tl.int64)
    rows = (program % blocks).to(tl.int64) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    row_mask = rows < queries
    # Queries beyond the last read the data of the last one; nothing is written for them.
    read_rows = tl.minimum(rows, queries - 1)
    channels = tl.arange(0, BLOCK_D)
    channel_mask = channels < HEAD_DIM
    q_ptr += batch * q_batch_stride + head * q_head_stride
    k_ptr += batch * k_batch_stride + head * k_head_stride
    v_ptr += batch * v_batch_stride + head * v_head_stride
    q_scale_ptr += batch * q_scale_batch_stride + head * q_scale_head_stride
    k_scale_ptr += batch * k_scale_batch_stride + head * k_scale_head_stride
    v_scale_ptr += batch * v_scale_batch_stride + head * v_scale_head_stride
    if bias_ptr is not None:
        bias_ptr += batch * bias_batch_stride + head * bias_head_stride
    if mask_ptr is not None:
        mask_ptr += batch * mask_batch_stride

    q = tl.load(q_ptr + read_rows[:, None] * q_stride + channels[None, :], mask=channel_mask[None, :], other=0)
    q_scale = tl.load(q_scale_ptr + read_rows * q_scale_stride) * (logit_scale * _LOG2E)
    if not KEY_SCALES:
        q_scale *= tl.load(k_scale_ptr)
    zeros_of_q = tl.zeros((BLOCK_Q,), dtype=tl.int32)
    if k_zero_ptr is not None:
        zeros_of_q = tl.sum(q.to(tl.int32), 1) * tl.load(k_zero_ptr)
        if q_zero_ptr is not None:
            zeros_of_q -= HEAD_DIM * tl.load(k_zero_ptr) * tl.load(q_zero_ptr)

    largest = tl.full((BLOCK_Q,), -float("inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_Q,), dtype=tl.float32)
    y = tl.zeros((BLOCK_Q, BLOCK_D), dtype=tl.float32)
    # Only the last block of keys may be incomplete and needs a mask.
    all_channels: tl.constexpr = HEAD_DIM == BLOCK_D
    last = (keys - 1) // BLOCK_K * BLOCK_K
    for is_last in tl.static_range(2):
        for start in range(last if is_last else 0, keys if is_last else last, BLOCK_K):
            columns = start + tl.arange(0, BLOCK_K)
            column_mask = columns < keys
            columns = columns.to(tl.int64)
            places = k_ptr + columns[None, :] * k_stride + channels[:, None]
            k = load_codes(places, column_mask[None, :] & channel_mask[:, None], all_channels and not is_last)
            places = v_ptr + columns[:, None] * v_stride + channels[None, :]
            v = load_codes(places, column_mask[:, None] & channel_mask[None, :], all_channels and not is_last)
            logits = multiply_keys(q, k, zeros_of_q, q_zero_ptr, k_zero_ptr).to(tl.float32) * q_scale[:, None]
            if KEY_SCALES:
                logits *= tl.load(k_scale_ptr + columns * k_scale_stride, mask=column_mask, other=0.0)[None, :]
            bias_places, valid_places, v_scale = None, None, None
            if bias_ptr is not None:
                bias_places = bias_ptr + read_rows[:, None] * bias_query_stride + columns[None, :] * bias_key_stride
            if mask_ptr is not None:
                valid_places = mask_ptr + columns * mask_stride
            logits = bias_and_mask(logits, bias_places, valid_places, column_mask, is_last)
            if VALUE_SCALES:
                v_scale = tl.load(v_scale_ptr + columns * v_scale_stride, mask=column_mask, other=1.0)
            largest, total, y = meet_values(largest, total, y, logits, v, v_scale, v_zero_ptr)
    y /= total[:, None]
    if not VALUE_SCALES:
        y *= tl.load(v_scale_ptr)
    tl.store(
        y_ptr + ((batch * queries + rows[:, None]) * heads + head) * HEAD_DIM + channels[None, :],
        y.to(y_ptr.dtype.element_ty),
        mask=row_mask[:, None] & channel_mask[None, :],
    )


def channel_block(head_dim: int) -> int:
    """Return the channels of a head, padded for the matrix units to a power of two of at least 32."""
    return max(32, triton.next_power_of_2(head_dim))


def attention_int8(
    q: Int8[Tensor, "b h i d"],
    k: Int8[Tensor, "b h j d"],
    v: Int8[Tensor, "b h j d"],
    q_scale: Float[Tensor, "..."],
    k_scale: Float[Tensor, "..."],
    v_scale: Float[Tensor, "..."],
    *,
    q_zero: Integer[Tensor, ""] | None = None,
    k_zero: Integer[Tensor, ""] | None = None,
    v_zero: Integer[Tensor, ""] | None = None,
    bias: Float[Tensor, "*#bh #i #j"] | None = None,
    mask: Bool[Tensor, "#b j"] | None = None,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
    tile: AttentionTile | None = None,
) -> Float[Tensor, "b i h d"]:
    """Return `protquant.kernels.reference.attention` of the decoded codes, by one kernel that does not store logits.

    Sums of products of q and k are exact. Probabilities are float16, so the error of the sum of their products with v
    is at most 2^-11 of the largest |v|. Without any keys, the output is 0.

    Parameters
    ----------
    q, k, v : Tensor, shape=(b, h, i or j, d), dtype=int8
        Codes of queries, keys and values, with any strides.
    q_scale, k_scale, v_scale : Tensor, shape=() or (b, h, i or j)
        One positive scale for all tokens, or one per token; also a shape that broadcasts, such as (h, 1) for one scale
        per head.
    q_zero, k_zero, v_zero : Tensor of int32, shape=(), optional
        The codes that mean 0; None for 0.
    dtype : torch.dtype
        Type of the output.
    tile : AttentionTile, optional
        By default the tile of the device.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit.
    """
    _check(q, k, v, q_scale, k_scale, v_scale, bias, mask)
    (b, h, i, d), j = q.shape, k.shape[2]
    y = torch.empty((b, i, h, d), dtype=dtype, device=q.device)
    if y.numel() == 0 or j == 0:
        return y.zero_()
    q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
    q_scale, k_scale = q_scale.float().expand(b, h, i), k_scale.float().expand(b, h, j)
    v_scale = v_scale.float().expand(b, h, j)
    q_zero, k_zero, v_zero = (None if zero is None else zero.int() for zero in (q_zero, k_zero, v_zero))
    bias = None if bias is None else bias.expand(b, h, i, j)
    mask = None if mask is None else mask.expand(b, j).view(torch.uint8)
    is_wide = bias is not None and bias.dtype == torch.float32
    if tile is None:
        key = f"attention_int8, {d} channels{', wide bias' if is_wide else ''}"
        tile = tuned(key, q.device, AttentionTile.of(target_of(q.device), d, is_wide=is_wide))
    attention_int8_kernel[(b * h * blocks_of(i, tile.queries),)](
        q,
        k,
        v,
        q_scale,
        k_scale,
        v_scale,
        q_zero,
        k_zero,
        v_zero,
        bias,
        mask,
        y,
        scale,
        h,
        i,
        j,
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        *q_scale.stride(),
        *k_scale.stride(),
        *v_scale.stride(),
        *((0, 0, 0, 0) if bias is None else bias.stride()),
        *((0, 0) if mask is None else mask.stride()),
        HEAD_DIM=d,
        BLOCK_D=channel_block(d),
        BLOCK_Q=tile.queries,
        BLOCK_K=tile.keys,
        KEY_SCALES=k_scale.stride(2) != 0,
        VALUE_SCALES=v_scale.stride(2) != 0,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return y


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_scale: Tensor,
    k_scale: Tensor,
    v_scale: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
) -> None:
    """Raise ValueError if the operands of `attention_int8` do not fit together."""
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.dtype != torch.int8 or tensor.ndim != 4:
            raise ValueError(f"{name} must be (b, h, l, d) of int8, not {tuple(tensor.shape)} of {tensor.dtype}")
    b, h, i, d = q.shape
    j = k.shape[2]
    if k.shape != v.shape or tuple(k.shape) != (b, h, j, d):
        raise ValueError(f"queries {tuple(q.shape)}, keys {tuple(k.shape)}, values {tuple(v.shape)} do not fit")
    operands: list[tuple[str, Tensor, tuple[int, ...]]]
    operands = [("q_scale", q_scale, (b, h, i)), ("k_scale", k_scale, (b, h, j)), ("v_scale", v_scale, (b, h, j))]
    operands += [("bias", bias, (b, h, i, j))] if bias is not None else []
    operands += [("mask", mask, (b, j))] if mask is not None else []
    for name, tensor, shape in operands:
        given = tuple(tensor.shape)
        padded = (1,) * (len(shape) - len(given)) + given
        if len(given) > len(shape) or any(a not in (1, n) for a, n in zip(padded, shape, strict=True)):
            raise ValueError(f"{name} has the shape {given}, which does not broadcast to {shape}")
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"the mask is of {mask.dtype}, not bool")
