"""The operations of `protquant.kernels.epilogue` inside the kernel that computes the sums of a linear layer."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from protquant.kernels.epilogue import Epilogue
from protquant.kernels.triton.nearest_code import nearest_code
from protquant.kernels.triton.operands import with_unit_columns

__all__ = ["epilogue_arguments", "finish_and_store", "is_wide"]


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
    """Apply the epilogue to a tile of scaled float32 sums, and write the tile; pointers that are None are left out.

    If `out_inverse`, the reciprocal of a step, is not None, the output is codes.
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
    m: int, n: int, device: torch.device, bias: Tensor | None, after: Epilogue, out: Tensor | None = None
) -> dict[str, Any]:
    """Return arguments of kernels that end with `finish_and_store`; `y_ptr` is the output: `out`, or a new tensor.

    Raises
    ------
    ValueError
        If options do not fit.
    """
    after.check(m, n)
    gate, residual = (None if each is None else with_unit_columns(each) for each in (after.gate, after.residual))
    grid = None if after.grid is None else after.grid.signed
    dtype = after.dtype if grid is None else torch.int8
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
        # The reciprocal in float32, as in the reference.
        "out_inverse": None if grid is None else float(torch.tensor(grid.scale).reciprocal()),
        "out_zero": 0 if grid is None else grid.zero,
        "ACTIVATION": after.activation,
        "OUT_LOW": -128 if grid is None else grid.low,
        "OUT_HIGH": 127 if grid is None else grid.high,
    }


def is_wide(gate: Tensor | None, residual: Tensor | None) -> bool:
    """Return whether the epilogue reads more float32 matrices than fit into registers beside a whole tile."""
    return gate is not None and residual is not None and torch.float32 in (gate.dtype, residual.dtype)
