"""A linear layer on packed four-bit weights, which the kernel unpacks, or decodes from dINT."""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int8
from torch import Tensor

from protquant.kernels.epilogue import PLAIN, Epilogue
from protquant.kernels.operands import Codes8
from protquant.kernels.triton.epilogue import epilogue_arguments, finish_and_store, is_wide
from protquant.kernels.triton.nibbles import load_nibbles, load_weight_steps
from protquant.kernels.triton.operands import KernelWeight, check_reads, with_unit_columns
from protquant.kernels.triton.output_tile import GROUP_M, output_tile
from protquant.kernels.triton.tiles import MatmulTile, Operands, blocks_of, linear_key, target_of
from protquant.kernels.triton.tuned import tuned

__all__ = [
    "block_of_group",
    "linear_int4",
    "linear_int4_kernel",
    "load_x",
    "operands_of",
    "sum_of_group",
]


@triton.jit
def load_x(x_ptr, x_zero, rows, row_mask, stride, start, end, BLOCK_K: tl.constexpr):
    """Load a block of x, with 0 beyond `end`: int8, floats, or four-bit codes less their zero point."""
    channels = start + tl.arange(0, BLOCK_K)
    mask = row_mask[:, None] & (channels < end)[None, :]
    if x_ptr.dtype.element_ty == tl.uint8:
        even, odd = load_nibbles(x_ptr, rows, row_mask, stride, start, end, BLOCK_K)
        return tl.where(mask, tl.interleave(even, odd) - x_zero[:, None].to(tl.int8), 0).to(tl.int8)
    else:  # noqa: RET505 (triton compiles either branch)
        return tl.load(x_ptr + rows[:, None] * stride + channels[None, :], mask=mask, other=0)


@triton.jit
def sum_of_group(
    x_ptr,
    x_zero,
    weight_ptr,
    weight_scale_ptr,
    weight_zero_ptr,
    weight_sum_ptr,
    group,
    groups,
    rows,
    columns,
    row_mask,
    column_mask,
    x_stride,
    weight_stride,
    first,
    end,
    MULTIPLY: tl.constexpr,
    SUM: tl.constexpr,
    DINT: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Return the part of the output from channels `first` to `end`, which are one group, in steps of x."""
    of_group = columns * groups + group
    zero = tl.load(weight_zero_ptr + of_group, mask=column_mask, other=0).to(tl.int8)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=SUM)
    for block in range(1 if ONE_BLOCK else tl.cdiv(end - first, BLOCK_K)):
        start = first + block * BLOCK_K
        x = load_x(x_ptr, x_zero, rows, row_mask, x_stride, start, end, BLOCK_K)
        weight = load_weight_steps(weight_ptr, columns, column_mask, weight_stride, zero, start, end, DINT, BLOCK_K)
        weight = tl.trans(weight.to(MULTIPLY))
        total = tl.dot(x.to(MULTIPLY), weight, total, input_precision="ieee", out_dtype=SUM)
    if weight_sum_ptr is not None:
        weight_sum = tl.load(weight_sum_ptr + of_group, mask=column_mask, other=0).to(tl.int32)
        total -= x_zero[:, None] * weight_sum[None, :]
    scale = tl.load(weight_scale_ptr + of_group, mask=column_mask, other=0.0).to(tl.float32)
    if DINT:
        scale *= 0.5  # weights count half steps
    return total.to(tl.float32) * scale[None, :]


@triton.jit
def linear_int4_kernel(
    x_ptr,
    x_scale_ptr,
    x_zero_ptr,
    weight_ptr,
    weight_scale_ptr,
    weight_zero_ptr,
    weight_sum_ptr,
    bias_ptr,
    gate_ptr,
    residual_ptr,
    y_ptr,
    M,
    N,
    K,
    x_stride,
    scale_stride,
    weight_stride,
    groups,
    group_size,
    gate_stride,
    residual_stride,
    out_inverse,
    out_zero,
    MULTIPLY: tl.constexpr,
    SUM: tl.constexpr,
    DINT: tl.constexpr,
    ONE_GROUP: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    ACTIVATION: tl.constexpr,
    OUT_LOW: tl.constexpr,
    OUT_HIGH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """Compute one tile of the output. Pointers that are None at compile time are left out.

    Products are in the type `MULTIPLY`, int8 or the float type of x, and sums in the type `SUM`. With `ONE_GROUP` all
    channels are one group; with `ONE_BLOCK` a group has at most `BLOCK_K` channels. `weight_sum_ptr` has sums of steps
    by output channel and group, which are needed if int8 codes have a zero point.
    """
    rows, columns = output_tile(M, N, BLOCK_M, BLOCK_N, GROUP_M)
    row_mask, column_mask = rows < M, columns < N
    x_zero = tl.zeros((BLOCK_M,), dtype=tl.int32)
    if x_zero_ptr is not None:
        x_zero = tl.load(x_zero_ptr + rows * scale_stride, mask=row_mask, other=0)
    y = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for group in range(1 if ONE_GROUP else groups):
        y += sum_of_group(
            x_ptr,
            x_zero,
            weight_ptr,
            weight_scale_ptr,
            weight_zero_ptr,
            weight_sum_ptr,
            group,
            groups,
            rows,
            columns,
            row_mask,
            column_mask,
            x_stride,
            weight_stride,
            group * group_size,
            min((group + 1) * group_size, K),
            MULTIPLY,
            SUM,
            DINT,
            ONE_BLOCK,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
        )
    if x_scale_ptr is not None:
        y *= tl.load(x_scale_ptr + rows * scale_stride, mask=row_mask, other=0.0).to(tl.float32)[:, None]
    finish_and_store(
        y,
        rows,
        columns,
        M,
        N,
        bias_ptr,
        gate_ptr,
        residual_ptr,
        y_ptr,
        gate_stride,
        residual_stride,
        out_inverse,
        out_zero,
        ACTIVATION,
        OUT_LOW,
        OUT_HIGH,
    )


def linear_int4(
    x: Codes8 | Float[Tensor, "m k"],
    weight: KernelWeight,
    after: Epilogue = PLAIN,
    *,
    has_zero: bool = True,
    out: Float[Tensor, "m n"] | Int8[Tensor, "m n"] | None = None,
    tile: MatmulTile | None = None,
) -> Float[Tensor, "m n"] | Int8[Tensor, "m n"]:
    """Return `protquant.kernels.reference.linear.linear` for weights of four bits, by one kernel.

    Parameters
    ----------
    x : Codes8 or Tensor
        Codes of eight bits, int8; codes of four bits, uint8, packed by `pack_nibbles`; or floats.
    has_zero : bool
        False if the zero points of `x` are known to be 0: the kernel leaves them out.
    out : Tensor, shape=(m, n), contiguous, optional
        Memory for the output; it may be the residual itself.
    tile : MatmulTile, optional
        By default the tile of the device.

    Raises
    ------
    ValueError
        If operands do not fit.
    """
    scale, zero = (x.scale, x.zero if has_zero else None) if isinstance(x, Codes8) else (None, None)
    data = with_unit_columns(x.data)
    m, n, size = len(data), len(weight.codes), weight.group_size
    if data.dtype != torch.uint8:
        check_reads(data.shape[1], weight)
    elif data.shape[1] != weight.codes.shape[1]:
        raise ValueError(f"x has rows of {data.shape[1]} bytes, which are not {weight.channels} channels of 4 bits")
    arguments = epilogue_arguments(m, n, data.device, weight.bias, after, out)
    y: Tensor = arguments["y_ptr"]
    if y.numel() == 0:
        return y
    groups = weight.scale.shape[1]
    if tile is None:
        # The sums of a group take as many registers as the sums of all groups.
        wide = groups > 1 or is_wide(arguments["gate_ptr"], arguments["residual_ptr"])
        operands = operands_of(data.dtype)
        default = MatmulTile.of(target_of(data.device), operands, channels=weight.channels, wide=wide)
        tile = tuned(linear_key(operands, weight.channels, wide), data.device, default)
    block_k = block_of_group(size, tile.block_k)
    linear_int4_kernel[(blocks_of(m, tile.block_m) * blocks_of(n, tile.block_n),)](
        x_ptr=data,
        x_scale_ptr=scale,
        x_zero_ptr=zero,
        weight_ptr=weight.codes,
        weight_scale_ptr=weight.scale,
        weight_zero_ptr=weight.zero,
        # The kernel subtracts the zero point of four-bit codes before it multiplies them.
        weight_sum_ptr=None if zero is None or data.dtype == torch.uint8 else weight.sums,
        M=m,
        N=n,
        K=weight.channels,
        x_stride=data.stride(0),
        scale_stride=0 if scale is None or len(scale) == 1 else 1,
        weight_stride=weight.codes.stride(0),
        groups=groups,
        group_size=size,
        MULTIPLY=_multiplied_as(data),
        SUM=tl.float32 if data.is_floating_point() else tl.int32,
        DINT=weight.kind == "dint4",
        ONE_GROUP=groups == 1,
        ONE_BLOCK=block_k >= size,
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=block_k,
        GROUP_M=GROUP_M,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
        # Scaled sums of integers are rounded before they are added; products of floats are not.
        enable_fp_fusion=data.is_floating_point(),
        **arguments,
    )
    return y


def _multiplied_as(x: Tensor) -> tl.dtype:
    if x.dtype == torch.bfloat16 and not x.is_cuda:
        # Products of bfloat16 are wrong in Triton's interpreter, which multiplies their bits; float32 is exact.
        return tl.float32
    return {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}.get(x.dtype, tl.int8)


def operands_of(dtype: torch.dtype) -> Operands:
    """Return the name of the tiles for x of this type."""
    if dtype == torch.float32:
        return "float"
    return "half" if dtype.is_floating_point else "int4"


def block_of_group(group_size: int, block_k: int) -> int:
    """Return how many channels to multiply at a time: at most `block_k`, and if possible a divisor of a group."""
    divisor = group_size & -group_size
    return min(block_k, max(divisor if divisor >= 32 else triton.next_power_of_2(group_size), 32))
