"""Linear layers as the Triton backend keeps them: codes as their kernel reads them, and what they write."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Int8
from torch import Tensor

from protquant.kernels.backend import Linear
from protquant.kernels.epilogue import PLAIN, Epilogue
from protquant.kernels.operands import Activation, Codes8, Grid, IntegerWeight, TokenGrid
from protquant.kernels.reference.linear import linear, linear_codes
from protquant.kernels.triton.int4_linear import linear_int4
from protquant.kernels.triton.int8_linear import linear_int8
from protquant.kernels.triton.operands import KernelWeight

__all__ = ["KernelLayer", "PlainLayer", "TritonLayer", "layer_of"]


class TritonLayer(Linear):
    """A layer of the Triton backend.

    Attributes
    ----------
    kernel : str
        What multiplies.
    """

    kernel: str

    @abstractmethod
    def run(self, x: Codes8, after: Epilogue = PLAIN, out: Tensor | None = None) -> Tensor:
        """The product, the bias, and what comes after them; the layer's own activation is left to `after`.

        `out` is where to write, contiguous; it may be the residual itself.
        """

    @abstractmethod
    def run_coded(self, x: Codes8) -> Int8[Tensor, "m n"]:
        """Outputs on the signed forms of `outs`."""


class KernelLayer(TritonLayer):
    """A layer whose weight a kernel reads: eight bits by output channel, or four bits in groups of an even size."""

    def __init__(
        self,
        weight: IntegerWeight,
        grid: Grid | TokenGrid,
        activation: Activation,
        outs: Sequence[tuple[Grid, int]],
    ) -> None:
        # What the kernel reads is all that is needed.
        super().__init__(replace(weight, codes=weight.codes.to("meta")), activation, outs)
        self.kernel = f"linear_{weight.kind}"
        self.kernel_weight = KernelWeight.of(weight)
        self.reads_zero = isinstance(grid, TokenGrid) or grid.signed.zero != 0
        self._coded = self._coded_parts()

    @property
    def nbytes(self) -> int:
        return self.kernel_weight.nbytes

    @property
    def pair_weight(self) -> KernelWeight | None:
        """The weight as the kernels of the pair track take it: eight bits without zero points; None for another."""
        weight = self.kernel_weight
        return weight if weight.kind == "int8" and weight.zero is None else None

    def run(self, x: Codes8, after: Epilogue = PLAIN, out: Tensor | None = None) -> Tensor:
        return self._run(x, self.kernel_weight, after, out)

    def _run(self, x: Codes8, weight: KernelWeight, after: Epilogue, out: Tensor | None = None) -> Tensor:
        multiply = linear_int8 if weight.kind == "int8" else linear_int4
        return multiply(x, weight, after, has_zero=self.reads_zero, out=out)

    def run_coded(self, x: Codes8) -> Int8[Tensor, "m n"]:
        parts = [self._run(x, weight, Epilogue(self.activation, grid=grid)) for weight, grid in self._coded]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _coded_parts(self) -> list[tuple[KernelWeight, Grid]]:
        """Output channels that are made together, and their grid: one kernel wherever that can be."""
        grids, weight = [grid.signed for grid, _ in self.outs], self.kernel_weight
        if len(grids) <= 1:
            return [(weight, grid) for grid in grids]
        if self.activation == "none" and len({(grid.low, grid.high) for grid in grids}) == 1:
            # Scales of grids go into those of the weight, zero points into the bias: codes are steps of 1 then.
            counts = torch.tensor([count for _, count in self.outs])
            scale = torch.tensor([grid.scale for grid in grids]).repeat_interleave(counts)
            bias = torch.tensor([float(grid.zero) for grid in grids]).repeat_interleave(counts)
            scale, bias = scale.to(weight.scale.device), bias.to(weight.scale.device)
            if weight.bias is not None:
                bias = bias + weight.bias / scale
            by_channel = scale[:, None] if weight.scale.ndim == 2 else scale
            scaled = replace(weight, scale=weight.scale / by_channel, bias=bias)
            return [(scaled, Grid(1.0, 0, grids[0].low, grids[0].high))]
        parts, first = [], 0
        for grid, (_, count) in zip(grids, self.outs, strict=True):
            parts.append((weight.part(slice(first, first + count)), grid))
            first += count
        return parts


class PlainLayer(TritonLayer):
    """Weights that no kernel here reads, multiplied as the reference does: eight bits in groups, odd groups of four."""

    kernel = "reference"

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes

    def run(self, x: Codes8, after: Epilogue = PLAIN, out: Tensor | None = None) -> Tensor:
        y = linear(x, self.weight, after)
        return y if out is None else out.copy_(y)

    def run_coded(self, x: Codes8) -> Int8[Tensor, "m n"]:
        return linear_codes(x, self.weight, self.activation, self.outs).data


def layer_of(
    weight: IntegerWeight,
    grid: Grid | TokenGrid,
    activation: Activation = "none",
    outs: Sequence[tuple[Grid, int]] = (),
) -> TritonLayer:
    """The layer of a weight, with a kernel if there is one for its format."""
    size = weight.group_size
    one_group = size is None or size >= weight.in_features
    if one_group or (weight.kind != "int8" and size is not None and size % 2 == 0):
        return KernelLayer(weight, grid, activation, outs)
    return PlainLayer(weight, activation, outs)
