"""Linear layers of the Triton backend: codes in the layout of their kernel, and the grids of their outputs."""

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
        Name of the product.
    """

    kernel: str

    @abstractmethod
    def run(self, x: Codes8, after: Epilogue = PLAIN, out: Tensor | None = None) -> Tensor:
        """Return the product with the bias and the epilogue `after`, which includes the layer's own activation.

        `out` is contiguous memory for the output; it may be the residual itself.
        """

    @abstractmethod
    def run_coded(self, x: Codes8) -> Int8[Tensor, "m n"]:
        """Return codes of the outputs on the signed forms of `outs`."""


class KernelLayer(TritonLayer):
    """A layer with a kernel: weights of eight bits per output channel, or of four bits in groups of an even size."""

    def __init__(
        self,
        weight: IntegerWeight,
        grid: Grid | TokenGrid,
        activation: Activation,
        outs: Sequence[tuple[Grid, int]],
    ) -> None:
        # The layer keeps only the layout that the kernel reads.
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
        """The weight for kernels of the pair track, which need eight bits without zero points; None for others."""
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
        """The output channels of each kernel call, with their grid; one call if possible."""
        grids, weight = [grid.signed for grid, _ in self.outs], self.kernel_weight
        if len(grids) <= 1:
            return [(weight, grid) for grid in grids]
        if self.activation == "none" and len({(grid.low, grid.high) for grid in grids}) == 1:
            # Put scales of grids into scales of the weight, and zero points into the bias: codes are then steps of 1.
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
    """A layer without a kernel, computed by the reference: weights of eight bits in groups, or four in odd groups."""

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
    """Return the layer of a weight, with a kernel if its format has one."""
    size = weight.group_size
    one_group = size is None or size >= weight.in_features
    if one_group or (weight.kind != "int8" and size is not None and size % 2 == 0):
        return KernelLayer(weight, grid, activation, outs)
    return PlainLayer(weight, activation, outs)
