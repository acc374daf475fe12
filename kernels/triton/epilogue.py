"""What linear layers do with their sums inside the kernel that made them: `protquant.kernels.reference.epilogue`."""

from typing import Any, Unpack

import torch
import triton
import triton.language as tl
from torch import Tensor

from protquant.kernels.reference.epilogue import Epilogue, check_epilogue
from protquant.kernels.triton.nearest_code import nearest_code

__all__ = ["epilogue_arguments", "finish_and_store", "is_wide", "with_unit_columns"]


@triton.jit
def finish_and_store(
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
    ACTIVATION: tl.constexpr,
    OUT_LOW: tl.constexpr,
    OUT_HIGH: tl.constexpr,
):
    """Finish a tile of scaled sums, float32, and write it; pointers that are None are left out.

    Codes are written where `out_inverse`, the reciprocal of their step, is not None.
    """
    column_mask = columns < N
    mask = (rows < M)[:, None] & column_mask[None, :]
    if bias_ptr is not None:
        y += tl.load(bias_ptr + columns, mask=column_mask, other=0.0).to(tl.float32)[None, :]
    if ACTIVATION == "relu":
        y = tl.maximum(y, 0.0)
    elif ACTIVATION == "gelu":
        y = 0.5 * y * (1.0 + tl.erf(y * 0.7071067811865476))
    elif ACTIVATION == "sigmoid":
        y = tl.sigmoid(y)
    if gate_ptr is not None:
        y *= tl.load(gate_ptr + rows[:, None] * gate_stride + columns[None, :], mask=mask).to(tl.float32)
    if residual_ptr is not None:
        y += tl.load(residual_ptr + rows[:, None] * residual_stride + columns[None, :], mask=mask).to(tl.float32)
    if out_inverse is not None:
        y = nearest_code(y, out_inverse, out_zero, OUT_LOW, OUT_HIGH)
    tl.store(y_ptr + rows[:, None] * N + columns[None, :], y.to(y_ptr.dtype.element_ty), mask=mask)


def epilogue_arguments(
    m: int, n: int, device: torch.device, out: Tensor | None = None, **after: Unpack[Epilogue]
) -> dict[str, Any]:
    """Arguments of kernels that end with `finish_and_store`; `y_ptr` is the output: `out`, or a new one.

    Raises
    ------
    ValueError
        For options that do not fit.
    """
    check_epilogue(m, n, **after)
    out_scale, bias = after.get("out_scale"), after.get("bias")
    gate, residual = after.get("gate"), after.get("residual")
    gate = None if gate is None else with_unit_columns(gate)
    residual = None if residual is None else with_unit_columns(residual)
    dtype = after.get("dtype", torch.float32) if out_scale is None else torch.int8
    if out is None:
        out = torch.empty((m, n), dtype=dtype, device=device)
    elif tuple(out.shape) != (m, n) or out.dtype != dtype or not out.is_contiguous():
        raise ValueError(f"out must be ({m}, {n}) of {dtype}, contiguous, not {tuple(out.shape)} of {out.dtype}")
    return {
        "bias_ptr": None if bias is None else bias.contiguous(),
        "gate_ptr": gate,
        "residual_ptr": residual,
        "y_ptr": out,
        "gate_stride": 0 if gate is None else gate.stride(0),
        "residual_stride": 0 if residual is None else residual.stride(0),
        # Of float32, as the reference takes it.
        "out_inverse": None if out_scale is None else float(torch.tensor(out_scale).reciprocal()),
        "out_zero": after.get("out_zero", 0),
        "ACTIVATION": after.get("activation", "none"),
        "OUT_LOW": after.get("out_low", -128),
        "OUT_HIGH": after.get("out_high", 127),
    }


def is_wide(gate: Tensor | None, residual: Tensor | None) -> bool:
    """Whether the epilogue reads more float32 matrices than fit into registers beside a whole tile."""
    return gate is not None and residual is not None and torch.float32 in (gate.dtype, residual.dtype)


def with_unit_columns(x: Tensor) -> Tensor:
    """`x`, copied where its columns are strided."""
    return x if x.stride(-1) == 1 else x.contiguous()
