"""Linear layers on codes by oneDNN's int8 product, with what follows fused into it.

A weight is multiplied in parts, whose products are added: one part in most cases, one per group of a weight with group
scales, or two where the product of whole bytes saturates. If the parts take more bytes than the stored weight (four
bits, or two parts of a byte each), `unpacked` makes them when they are needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer, UInt8
from torch import Tensor

from protquant.kernels.backend import Linear
from protquant.kernels.cpu.features import Features
from protquant.kernels.cpu.packing import pack_weight
from protquant.kernels.cpu.quantize import quantize_static
from protquant.kernels.operands import Activation, Codes8, Grid, IntegerWeight, TokenGrid

__all__ = ["CPULinear"]

_STEPS = Grid(1.0, 0, 0, 255)
"""Grid of scale 1, for outputs that are already divided by the scale of their own grid."""


@dataclass(frozen=True)
class _Part:
    """Columns of the weight, packed by oneDNN, and the scale of each output of their product."""

    columns: slice
    packed: Tensor
    scale: Float[Tensor, " n"]


class CPULinear(Linear):
    """A linear layer of the CPU backend.

    Parameters
    ----------
    can : Features
        Products of codes that the CPU uses.
    """

    def __init__(
        self,
        weight: IntegerWeight,
        grid: Grid | TokenGrid,
        activation: Activation,
        outs: Sequence[tuple[Grid, int]],
        can: Features,
    ) -> None:
        super().__init__(weight, activation, outs)
        self.grid, self.can = grid, can
        self._row_sums = None if isinstance(grid, Grid) else _row_sums(weight)
        # Scales and zero points of tokens are applied after the product.
        self._in_scale, self._in_zero = (grid.scale, grid.unsigned.zero) if isinstance(grid, Grid) else (1.0, 0)
        # One pass computes the codes of all outputs: each output is divided by the scale of its own grid.
        grids = [grid.unsigned for grid, count in self.outs for _ in range(count)]
        self._per_step = self._shift = None
        if grids:
            out_scale, out_zero = torch.tensor([(grid.scale, float(grid.zero)) for grid in grids]).T
            self._per_step = out_scale.reciprocal()
            self._shift = out_zero.contiguous() if weight.bias is None else weight.bias / out_scale + out_zero
        self._parts: list[_Part] | None = None
        self._steps: Tensor | None = None
        self._in_two = can.product == "onednn, 7 bits" and _saturates(weight, grid)
        if weight.kind == "int8" and not self._in_two:
            self._open()
            if can.product != "float":  # The layer keeps only the codes that oneDNN packed.
                self.weight = replace(weight, codes=weight.codes.to("meta"))

    @property
    def nbytes(self) -> int:
        packed = [] if self._parts is None else [torch.ops.mkldnn._nbytes(part.packed) for part in self._parts]  # noqa: SLF001
        tables = (self.weight.scale, self.weight.zero, self._row_sums, self._per_step, self._shift)
        codes = 0 if self.weight.codes.is_meta else self.weight.codes.nbytes
        return codes + sum(packed) + sum(table.nbytes for table in tables if table is not None)

    def unpacked(self) -> "CPULinear":
        """Return the layer itself if its weight is unpacked, else a copy with an unpacked weight."""
        if self._parts is not None or self._steps is not None:
            return self
        other = object.__new__(CPULinear)
        other.__dict__.update(self.__dict__)
        other._open()
        return other

    def _open(self) -> None:
        steps, weight = self.weight.steps(), self.weight
        if self.can.product == "float":
            self._steps = steps
            return
        size = weight.group_size or weight.in_features
        self._parts = []
        for index, group in enumerate(steps.split(size, 1)):
            columns = slice(index * size, index * size + group.shape[1])
            scale = weight.step_scale[:, index].contiguous()
            if self._in_two:
                self._parts += [
                    _Part(columns, pack_weight(group >> 1), 2 * scale),
                    _Part(columns, pack_weight(group & 1), scale),
                ]
            else:
                self._parts.append(_Part(columns, pack_weight(group), scale))

    @property
    def is_fused(self) -> bool:
        """Whether scales, zero points and bias are part of oneDNN's products."""
        return self._parts is not None and isinstance(self.grid, Grid) and not self._has_zero

    @property
    def _is_single(self) -> bool:
        """Whether one product computes the outputs, so that the steps after it can be fused into it."""
        return self.is_fused and self._parts is not None and len(self._parts) == 1

    @property
    def _has_zero(self) -> bool:
        return self.weight.kind == "int8" and self.weight.zero is not None

    def to_float(self, x: Codes8, dtype: torch.dtype) -> Float[Tensor, "m n"]:
        """Return the outputs in `dtype`."""
        if self._is_single and self._writes(dtype):
            return self._fused(x, dtype=dtype, post=self.activation)
        if self.is_fused and self.activation in ("none", "relu"):
            return self._fused(x, post=self.activation).to(dtype)
        return self._activated(self._sum(x)).to(dtype)

    def tanh_half(self, x: Codes8, dtype: torch.dtype) -> Float[Tensor, "m n"]:
        """Return tanh(y / 2) = 2 sigmoid(y) - 1 of the outputs y: oneDNN fuses tanh, but not the sigmoid."""
        if self._is_single and self._writes(dtype):
            return self._fused(x, 0.5, dtype=dtype, post="tanh")
        half = self._fused(x, 0.5) if self.is_fused else self._sum(x).mul_(0.5)
        return half.tanh_().to(dtype)

    def add_to(self, x: Codes8, residual: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
        """Add the outputs to `residual`, in place."""
        # A 16-bit residual is rounded once, not after each part.
        fits = residual.dtype == torch.float32 or (self._is_single and self._writes(residual.dtype))
        if self.is_fused and self.activation == "none" and residual.is_contiguous() and fits:
            return self._fused(x, dtype=residual.dtype, total=residual)
        return residual.add_(self.to_float(x, torch.float32))

    def to_codes(self, x: Codes8) -> UInt8[Tensor, "m n"]:
        """Return codes of the outputs on the unsigned forms of `outs`."""
        if self.is_fused and self.activation == "none":
            return self._clamp(self._fused(x, self._per_step, self._shift, codes=_STEPS))
        # The activation comes after the bias and before the rounding.
        if len(self.outs) == 1 and (self._is_single or (self.is_fused and self.activation == "relu")):
            return self._clamp(self._fused(x, post=self.activation, codes=self.outs[0][0].unsigned))
        parts = self.to_float(x, torch.float32).split([count for _, count in self.outs], dim=1)
        return torch.cat([quantize_static(p, grid) for p, (grid, _) in zip(parts, self.outs, strict=True)], dim=1)

    def _clamp(self, codes: UInt8[Tensor, "m n"]) -> UInt8[Tensor, "m n"]:
        """Clamp codes in place to grids that use fewer codes than a byte has."""
        for part, (grid, _) in zip(codes.split([n for _, n in self.outs], dim=1), self.outs, strict=True):
            low, high = grid.unsigned.low, grid.unsigned.high
            if (low, high) != (0, 255):
                part.clamp_(low, high)
        return codes

    def _activated(self, y: Tensor) -> Tensor:
        return F.relu(y) if self.activation == "relu" else F.gelu(y) if self.activation == "gelu" else y

    def _writes(self, dtype: torch.dtype) -> bool:
        """Return whether oneDNN's product is fast with outputs of this type; bfloat16 can be 1,000 times slower."""
        return dtype != torch.bfloat16 or self.can.bfloat16

    def _fused(
        self,
        x: Codes8,
        factor: Float[Tensor, " n"] | float | None = None,
        bias: Float[Tensor, " n"] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        post: str = "none",
        codes: Grid | None = None,
        total: Float[Tensor, "m n"] | None = None,
    ) -> Tensor:
        """Return `post(factor * x weight^T + bias)`, with no further pass over memory than the products take.

        Parameters
        ----------
        factor : Tensor or float, optional
            Factor of each output, or one of all.
        bias : Tensor, optional
            By default the layer's bias times `factor`.
        post : str
            oneDNN's name of the activation. With several products only `none` and `relu` are possible.
        codes : Grid, optional
            Grid of the codes to return; they are not clamped to its limits.
        total : Tensor, optional
            The result is added to it, in place.
        """
        assert self._parts is not None
        if bias is None and self.weight.bias is not None:
            bias = self.weight.bias if factor is None else self.weight.bias * factor
        *others, last = self._parts
        for part in others:
            total = self._product(x, part, factor, total=total)
        return self._product(x, last, factor, bias, dtype=dtype, post=post, codes=codes, total=total)

    def _product(
        self,
        x: Codes8,
        part: _Part,
        factor: Float[Tensor, " n"] | float | None = None,
        bias: Float[Tensor, " n"] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        post: str = "none",
        codes: Grid | None = None,
        total: Tensor | None = None,
    ) -> Tensor:
        """Return oneDNN's product with the scale and zero point of the layer's grid, added to `total` if given.

        `total` is changed in place, unless `codes` are returned.
        """
        some = x.data[:, part.columns]
        scale = part.scale if factor is None else part.scale * factor
        operands = (some.contiguous(), self._in_scale, self._in_zero, part.packed, scale, _zeros(len(scale)))
        written = (1.0, 0, dtype) if codes is None else (codes.scale, codes.zero, torch.uint8)
        linear = torch.ops.onednn.qlinear_pointwise
        if total is None:
            y: Tensor = linear(*operands, bias, *written, post, [], "none")
        else:
            y = linear.binary(
                *operands, total, bias, *written, 1.0, 0, "sum" if codes is None else "add", 1.0, post, [], ""
            )
        return y

    def _sum(self, x: Codes8) -> Float[Tensor, "m n"]:
        """Return outputs before the activation, float32, for any kind of scales."""
        y = self._float_sum(x) if self._parts is None else self._integer_sum(x)
        if self._has_zero:
            self._take_weight_zeros(x, y)
        if not isinstance(self.grid, Grid):  # apply the zero points and scales of tokens
            assert self._row_sums is not None
            y.addcmul_(x.zero[:, None].float(), self._row_sums, value=-1).mul_(x.scale[:, None])
        return y if self.weight.bias is None else y.add_(self.weight.bias)

    def _integer_sum(self, x: Codes8) -> Float[Tensor, "m n"]:
        assert self._parts is not None
        y = None
        for part in self._parts:
            y = self._product(x, part, total=y)
        assert y is not None
        return y

    def _float_sum(self, x: Codes8) -> Float[Tensor, "m n"]:
        assert self._steps is not None
        codes = x.data.float().sub_(self._in_zero)
        y = None
        size = self.weight.group_size or self.weight.in_features
        for index, (some, steps) in enumerate(zip(codes.split(size, 1), self._steps.split(size, 1), strict=True)):
            scaled = (some @ steps.float().T).mul_(self.weight.step_scale[:, index] * self._in_scale)
            y = scaled if y is None else y.add_(scaled)
        assert y is not None
        return y

    def _take_weight_zeros(self, x: Codes8, y: Float[Tensor, "m n"]) -> None:
        """Subtract in place the effect of zero points of eight-bit weights: sums of rows of the input."""
        assert self.weight.zero is not None
        size = self.weight.group_size or self.weight.in_features
        for index, codes in enumerate(x.data.split(size, 1)):
            total = codes.sum(1, dtype=torch.int32).sub_(self._in_zero * codes.shape[1]).float().mul_(self._in_scale)
            scaled = self.weight.zero[:, index].float() * self.weight.step_scale[:, index]
            y.addcmul_(total[:, None], scaled, value=-1)


def _saturates(weight: IntegerWeight, grid: Grid | TokenGrid) -> bool:
    """Return whether the sum of two products of codes can exceed 16 bits; with four-bit weights it cannot."""
    if weight.kind != "int8" or weight.codes.numel() == 0:
        return False
    largest = max(-int(weight.codes.min()), int(weight.codes.max()))
    return 2 * largest * (grid.unsigned.high if isinstance(grid, Grid) else 255) > 2**15 - 1


@lru_cache(maxsize=256)
def _zeros(count: int) -> Integer[Tensor, " n"]:
    """Return cached zeros, the zero points of the outputs of a symmetric weight."""
    with torch.inference_mode(False):  # code outside of inference mode could not use a tensor made in it
        return torch.zeros(count, dtype=torch.int32)


def _row_sums(weight: IntegerWeight) -> Float[Tensor, " n"]:
    """Return sums of the rows of the weight, to be multiplied with zero points of tokens; groups are summed exactly."""
    size = weight.group_size or weight.in_features
    groups = weight.steps().split(size, 1)
    sums = torch.stack([group.sum(1, dtype=torch.int32) for group in groups], dim=1).float()
    if weight.kind == "int8" and weight.zero is not None:
        sums -= weight.zero * torch.tensor([group.shape[1] for group in groups])
    return (sums * weight.step_scale).sum(1)
