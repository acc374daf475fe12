"""Linear layers on codes by oneDNN's int8 product, with what follows fused into it.

A weight is used in parts, whose products are added: one, as a rule; one per group where neighbors in a row have scales
of their own; two where the product of whole bytes saturates. Weights of four bits are unpacked by `opened`, for as long
as they are needed.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8, UInt8
from torch import Tensor

from protquant.kernels.backend import Linear
from protquant.kernels.cpu.features import IntegerProduct
from protquant.kernels.cpu.quantize import quantize_static
from protquant.kernels.operands import Activation, Codes8, Grid, IntegerWeight, TokenGrid

__all__ = ["CPULinear"]


@dataclass(frozen=True)
class _Part:
    """Columns of the weight, and the product that they go into."""

    columns: slice
    packed: Tensor
    scale: Float[Tensor, " n"]


class CPULinear(Linear):
    """A layer of the CPU backend.

    Parameters
    ----------
    product : str
        Of `features()`.
    """

    def __init__(
        self,
        weight: IntegerWeight,
        grid: Grid | TokenGrid,
        activation: Activation,
        outs: Sequence[tuple[Grid, int]],
        product: IntegerProduct,
    ) -> None:
        super().__init__(weight, activation, outs)
        self.grid, self.product = grid, product
        self._bytes = weight.nbytes
        self._no_zeros = torch.zeros(weight.out_features, dtype=torch.int32)
        self._row_sums = None if isinstance(grid, Grid) else _row_sums(weight)
        # What multiplies codes of rows with scales of their own takes them as they are.
        self._in_scale, self._in_zero = (grid.scale, grid.unsigned.zero) if isinstance(grid, Grid) else (1.0, 0)
        # Half of the scale and the bias, for tanh(y / 2).
        self._half = 0.5 * weight.step_scale[:, 0], None if weight.bias is None else 0.5 * weight.bias
        # Codes of all outputs in one pass, whatever their grids: a grid's scale goes into that of the weight.
        grids = [grid.unsigned for grid, count in self.outs for _ in range(count)]
        if grids:
            out_scale, out_zero = torch.tensor([(grid.scale, float(grid.zero)) for grid in grids]).T
            shift = out_zero if weight.bias is None else weight.bias / out_scale + out_zero
            self._to_codes = (weight.step_scale[:, 0] / out_scale).contiguous(), shift.contiguous()
        self._parts: list[_Part] | None = None
        self._steps: Tensor | None = None
        if weight.kind == "int8":
            self._open()
            if product != "float":  # What oneDNN has packed is all that is needed.
                self.weight = replace(weight, codes=weight.codes.to("meta"))

    @property
    def nbytes(self) -> int:
        return self._bytes

    def opened(self) -> "CPULinear":
        """The layer itself, or a copy of it with its four-bit weight unpacked."""
        if self._parts is not None or self._steps is not None:
            return self
        other = object.__new__(CPULinear)
        other.__dict__.update(self.__dict__)
        other._open()
        return other

    def _open(self) -> None:
        steps, weight = self.weight.steps(), self.weight
        if self.product == "float":
            self._steps = steps
            return
        size = weight.group_size or weight.in_features
        self._parts = []
        for index, group in enumerate(steps.split(size, 1)):
            columns, scale = (
                slice(index * size, index * size + group.shape[1]),
                weight.step_scale[:, index].contiguous(),
            )
            if self.product == "onednn":
                self._parts.append(_Part(columns, _packed(group), scale))
            else:
                self._parts += [
                    _Part(columns, _packed(group >> 1), 2 * scale),
                    _Part(columns, _packed(group & 1), scale),
                ]

    @property
    def is_fused(self) -> bool:
        """Whether scales, bias, activation and output codes are all part of one product."""
        return self._parts is not None and len(self._parts) == 1 and isinstance(self.grid, Grid) and not self._has_zero

    @property
    def _has_zero(self) -> bool:
        return self.weight.kind == "int8" and self.weight.zero is not None

    @property
    def _only(self) -> _Part:
        assert self._parts is not None
        return self._parts[0]

    def to_float(self, x: Codes8, dtype: torch.dtype) -> Float[Tensor, "m n"]:
        """Outputs, in `dtype`."""
        if self.is_fused:
            only = self._only
            return self._product(x.data, only.packed, only.scale, self.weight.bias, dtype=dtype, post=self.activation)
        return self._activated(self._sum(x)).to(dtype)

    def tanh_half(self, x: Codes8, dtype: torch.dtype) -> Float[Tensor, "m n"]:
        """tanh(y / 2) of the outputs y: twice their sigmoid, less 1. oneDNN fuses the one and not the other."""
        if self.is_fused:
            scale, bias = self._half
            return self._product(x.data, self._only.packed, scale, bias, dtype=dtype, post="tanh")
        return self._sum(x).mul_(0.5).tanh_().to(dtype)

    def add_to(self, x: Codes8, residual: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
        """Add the outputs to `residual`, in place."""
        if self.is_fused and self.activation == "none" and residual.is_contiguous():
            only, bias = self._only, self.weight.bias
            return self._product(x.data, only.packed, only.scale, bias, dtype=residual.dtype, total=residual)
        return residual.add_(self._activated(self._sum(x)))

    def to_codes(self, x: Codes8) -> UInt8[Tensor, "m n"]:
        """Outputs on the unsigned forms of `outs`."""
        if self.is_fused and self.activation == "none":
            scale, bias = self._to_codes
            return self._clamp(self._product(x.data, self._only.packed, scale, bias, dtype=torch.uint8))
        if self.is_fused and len(self.outs) == 1:  # The activation lies between the bias and the grid.
            only, grid = self._only, self.outs[0][0].unsigned
            codes = self._product(
                x.data, only.packed, only.scale, self.weight.bias, dtype=torch.uint8, post=self.activation, out=grid
            )
            return self._clamp(codes)
        parts = self._activated(self._sum(x)).split([count for _, count in self.outs], dim=1)
        return torch.cat([quantize_static(p, grid) for p, (grid, _) in zip(parts, self.outs, strict=True)], dim=1)

    def _clamp(self, codes: UInt8[Tensor, "m n"]) -> UInt8[Tensor, "m n"]:
        """Keep codes in grids that do not use all of a byte."""
        for part, (grid, _) in zip(codes.split([n for _, n in self.outs], dim=1), self.outs, strict=True):
            low, high = grid.unsigned.low, grid.unsigned.high
            if (low, high) != (0, 255):
                part.clamp_(low, high)
        return codes

    def _activated(self, y: Tensor) -> Tensor:
        return F.relu(y) if self.activation == "relu" else F.gelu(y) if self.activation == "gelu" else y

    def _sum(self, x: Codes8) -> Float[Tensor, "m n"]:
        """Outputs before the activation, float32, whatever the scales are."""
        y = self._float_sum(x) if self._parts is None else self._integer_sum(x)
        if self._has_zero:
            self._take_weight_zeros(x, y)
        if not isinstance(self.grid, Grid):  # zero points and scales of rows come behind
            assert self._row_sums is not None
            y.addcmul_(x.zero[:, None].float(), self._row_sums, value=-1).mul_(x.scale[:, None])
        return y if self.weight.bias is None else y.add_(self.weight.bias)

    def _integer_sum(self, x: Codes8) -> Float[Tensor, "m n"]:
        assert self._parts is not None
        y = None
        for part in self._parts:
            some = x.data if len(self._parts) == 1 else x.data[:, part.columns].contiguous()
            y = self._product(some, part.packed, part.scale, None, dtype=torch.float32, total=y)
        assert y is not None
        return y

    def _float_sum(self, x: Codes8) -> Float[Tensor, "m n"]:
        assert self._steps is not None
        codes = x.data.float().sub_(self._in_zero)
        y = torch.zeros(len(codes), len(self._steps))
        size = self.weight.group_size or self.weight.in_features
        for index, (some, steps) in enumerate(zip(codes.split(size, 1), self._steps.split(size, 1), strict=True)):
            y.addcmul_(some @ steps.float().T, self.weight.step_scale[:, index] * self._in_scale)
        return y

    def _take_weight_zeros(self, x: Codes8, y: Float[Tensor, "m n"]) -> None:
        """Take away what zero points of eight-bit weights have added: sums of rows of the input."""
        assert self.weight.zero is not None
        size = self.weight.group_size or self.weight.in_features
        for index, codes in enumerate(x.data.split(size, 1)):
            total = codes.sum(1, dtype=torch.int32).sub_(self._in_zero * codes.shape[1]).float().mul_(self._in_scale)
            scaled = self.weight.zero[:, index].float() * self.weight.step_scale[:, index]
            y.addcmul_(total[:, None], scaled, value=-1)

    def _product(
        self,
        data: UInt8[Tensor, "m k"],
        packed: Tensor,
        scale: Float[Tensor, " n"],
        bias: Float[Tensor, " n"] | None,
        *,
        dtype: torch.dtype,
        post: str = "none",
        out: Grid | None = None,
        total: Tensor | None = None,
    ) -> Tensor:
        """OneDNN's product with the scale and zero point of the layer's grid; with `total`, added to it in place."""
        linear = torch.ops.onednn.qlinear_pointwise
        operands = (data, self._in_scale, self._in_zero, packed, scale, self._no_zeros)
        if total is not None:
            y: Tensor = linear.binary(*operands, total, bias, 1.0, 0, dtype, 1.0, 0, "sum", 1.0, "none", [], "")
        elif out is not None:
            y = linear(*operands, bias, out.scale, out.zero, dtype, post, [], "none")
        else:
            y = linear(*operands, bias, 1.0, 0, dtype, post, [], "none")
        return y


def _packed(steps: Int8[Tensor, "n k"]) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ops.onednn.qlinear_prepack(steps.contiguous(), None)


def _row_sums(weight: IntegerWeight) -> Float[Tensor, " n"]:
    """Sums of the rows of the weight, which zero points of tokens are multiplied with; of integers, group by group."""
    size = weight.group_size or weight.in_features
    groups = weight.steps().split(size, 1)
    sums = torch.stack([group.sum(1, dtype=torch.int32) for group in groups], dim=1).float()
    if weight.kind == "int8" and weight.zero is not None:
        sums -= weight.zero * torch.tensor([group.shape[1] for group in groups])
    return (sums * weight.step_scale).sum(1)
