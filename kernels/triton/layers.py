"""Linear layers as the Triton backend keeps them: codes as their kernel reads them, and what they write."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, Unpack

import torch
from jaxtyping import Float, Int8, Integer
from torch import Tensor

from protquant.kernels.backend import Linear
from protquant.kernels.operands import Activation, Codes8, Grid, IntegerWeight, TokenGrid
from protquant.kernels.packing import pack_nibbles, unpack4
from protquant.kernels.reference.backend import ReferenceBackend
from protquant.kernels.reference.epilogue import Epilogue, finish
from protquant.kernels.reference.projection import Int8Projection
from protquant.kernels.triton.int4_linear import linear_int4, weight_sums
from protquant.kernels.triton.int8_linear import linear_int8

__all__ = ["Int4Layer", "Int8Layer", "OnGrid", "PlainLayer", "TritonLayer", "layer_of", "on_grid"]

# Steps of four-bit weights from 0, of dINT in halves.
_MOST_STEPS = 30


@dataclass(frozen=True)
class _Rows:
    """What a layer has by output channel, first axis; scales are (n,) of one group, or (n, g)."""

    codes: Tensor
    scale: Float[Tensor, "n ..."]
    zero: Integer[Tensor, "n ..."] | None
    sums: Integer[Tensor, "n ..."] | None
    bias: Float[Tensor, " n"] | None

    def part(self, rows: slice) -> "_Rows":
        """Those of some output channels."""
        return _Rows(*(None if values is None else values[rows] for values in vars(self).values()))  # type: ignore[arg-type]

    @property
    def nbytes(self) -> int:
        """Of all but the bias."""
        parts = (self.codes, self.scale, self.zero, self.sums)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)


class OnGrid(TypedDict):
    """The options of an `Epilogue` that make it write codes."""

    out_scale: float
    out_zero: int
    out_low: int
    out_high: int


class TritonLayer(Linear):
    """A layer of the Triton backend.

    Attributes
    ----------
    kernel : str
        What multiplies.
    """

    kernel: str

    @abstractmethod
    def run(self, x: Codes8, *, out: Tensor | None = None, **after: Unpack[Epilogue]) -> Tensor:
        """The product and what comes after it; the bias is there already, the layer's activation is not.

        `out` is where to write, contiguous; it may be the residual itself.
        """

    @abstractmethod
    def run_coded(self, x: Codes8) -> Int8[Tensor, "m n"]:
        """Outputs on the signed forms of `outs`."""


class _KernelLayer(TritonLayer):
    """What layers with a kernel share."""

    def __init__(
        self,
        weight: IntegerWeight,
        rows: _Rows,
        grid: Grid | TokenGrid,
        activation: Activation,
        outs: Sequence[tuple[Grid, int]],
    ) -> None:
        # What the kernel reads is all that is needed.
        super().__init__(replace(weight, codes=weight.codes.to("meta")), activation, outs)
        self._rows = rows
        self._reads_zero = isinstance(grid, TokenGrid) or grid.signed.zero != 0
        self._coded = self._coded_parts()

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes

    def zero_of(self, x: Codes8) -> Integer[Tensor, " s"] | None:
        """Zero points of what the layer reads; None where they are known to be 0."""
        return x.zero if self._reads_zero else None

    def run(self, x: Codes8, *, out: Tensor | None = None, **after: Unpack[Epilogue]) -> Tensor:
        return self._run(x, self._rows, out, **after)

    @abstractmethod
    def _run(self, x: Codes8, rows: _Rows, out: Tensor | None, **after: Unpack[Epilogue]) -> Tensor:
        """The product of some output channels."""

    def run_coded(self, x: Codes8) -> Int8[Tensor, "m n"]:
        parts = [self._run(x, rows, None, activation=self.activation, **on_grid(grid)) for rows, grid in self._coded]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _coded_parts(self) -> list[tuple[_Rows, Grid]]:
        """Output channels that are made together, and their grid: one kernel wherever that can be."""
        grids = [grid.signed for grid, _ in self.outs]
        if len(grids) <= 1:
            return [(self._rows, grid) for grid in grids]
        if self.activation == "none" and len({(grid.low, grid.high) for grid in grids}) == 1:
            # Scales of grids go into those of the weight, zero points into the bias: codes are steps of 1 then.
            counts = torch.tensor([count for _, count in self.outs])
            scale = torch.tensor([grid.scale for grid in grids]).repeat_interleave(counts)
            bias = torch.tensor([float(grid.zero) for grid in grids]).repeat_interleave(counts)
            scale, bias = scale.to(self._rows.scale.device), bias.to(self._rows.scale.device)
            if self._rows.bias is not None:
                bias = bias + self._rows.bias / scale
            by_channel = scale[:, None] if self._rows.scale.ndim == 2 else scale
            rows = replace(self._rows, scale=self._rows.scale / by_channel, bias=bias)
            return [(rows, Grid(1.0, 0, grids[0].low, grids[0].high))]
        parts, first = [], 0
        for grid, (_, count) in zip(grids, self.outs, strict=True):
            parts.append((self._rows.part(slice(first, first + count)), grid))
            first += count
        return parts


class Int8Layer(_KernelLayer):
    """Eight-bit weights with a scale per output channel."""

    kernel = "linear_int8"

    def __init__(
        self,
        weight: IntegerWeight,
        grid: Grid | TokenGrid,
        activation: Activation,
        outs: Sequence[tuple[Grid, int]],
    ) -> None:
        codes, zero = weight.codes.contiguous(), None
        sums = codes.sum(1, dtype=torch.int32)
        if weight.zero is not None:
            zero = weight.zero[:, 0].int()
            sums = sums - weight.in_features * zero
        rows = _Rows(codes, weight.scale[:, 0].float().contiguous(), zero, sums, weight.bias)
        super().__init__(weight, rows, grid, activation, outs)

    def _run(self, x: Codes8, rows: _Rows, out: Tensor | None, **after: Unpack[Epilogue]) -> Tensor:
        options: Epilogue = {**after, "bias": rows.bias}
        return linear_int8(
            x.data,
            x.scale,
            rows.codes,
            rows.scale,
            x_zero=self.zero_of(x),
            weight_zero=rows.zero,
            weight_sum=rows.sums,
            out=out,
            **options,
        )

    def projection(self) -> Int8Projection | None:
        """The weight as the kernels of the pair track take it; None for one with zeros."""
        rows = self._rows
        return None if rows.zero is not None else Int8Projection(rows.codes, rows.scale, rows.bias, rows.sums)


class Int4Layer(_KernelLayer):
    """Four-bit weights, uniform or dINT, packed by neighbors in a row, with scales of groups of an even size."""

    def __init__(
        self,
        weight: IntegerWeight,
        grid: Grid | TokenGrid,
        activation: Activation,
        outs: Sequence[tuple[Grid, int]],
    ) -> None:
        self._kind: Literal["uniform", "dint"] = "dint" if weight.kind == "dint4" else "uniform"
        self.kernel = "linear_dint4" if weight.kind == "dint4" else "linear_int4"
        self._size = min(weight.group_size or weight.in_features, weight.in_features)
        # Rows of a byte are far apart in the weight; the kernel reads neighbors.
        packed = pack_nibbles(unpack4(weight.codes, weight.out_features))
        scale = weight.scale.float().contiguous()
        zero = torch.zeros_like(scale, dtype=torch.uint8) if weight.zero is None else weight.zero.contiguous()
        sums = weight_sums(packed, zero, weight.in_features, self._size, self._kind)
        if self._size * _MOST_STEPS <= torch.iinfo(torch.int16).max:
            sums = sums.to(torch.int16)
        super().__init__(weight, _Rows(packed, scale, zero, sums, weight.bias), grid, activation, outs)

    def _run(self, x: Codes8, rows: _Rows, out: Tensor | None, **after: Unpack[Epilogue]) -> Tensor:
        assert rows.zero is not None
        options: Epilogue = {**after, "bias": rows.bias}
        return linear_int4(
            x.data,
            rows.codes,
            rows.scale,
            rows.zero,
            channels=self.weight.in_features,
            group_size=self._size,
            codes=self._kind,
            x_scale=x.scale,
            x_zero=self.zero_of(x),
            weight_sum=rows.sums,
            out=out,
            **options,
        )


class PlainLayer(TritonLayer):
    """Weights that no kernel here reads, multiplied as the reference does: eight bits in groups, odd groups of four."""

    kernel = "reference"

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes

    def run(self, x: Codes8, *, out: Tensor | None = None, **after: Unpack[Epilogue]) -> Tensor:
        reference = ReferenceBackend()
        sums = reference.linear(x, reference.prepare(self.weight, TokenGrid(8, symmetric=True)))
        y = finish(sums, **after)
        return y if out is None else out.copy_(y)

    def run_coded(self, x: Codes8) -> Int8[Tensor, "m n"]:
        return ReferenceBackend().linear_codes(x, self).data


def layer_of(
    weight: IntegerWeight,
    grid: Grid | TokenGrid,
    activation: Activation = "none",
    outs: Sequence[tuple[Grid, int]] = (),
) -> TritonLayer:
    """The layer of a weight, with a kernel if there is one for its format."""
    size = weight.group_size
    one_group = size is None or size >= weight.in_features
    if weight.kind == "int8" and one_group:
        return Int8Layer(weight, grid, activation, outs)
    if weight.kind != "int8" and (one_group or (size is not None and size % 2 == 0)):
        return Int4Layer(weight, grid, activation, outs)
    return PlainLayer(weight, activation, outs)


def on_grid(grid: Grid) -> OnGrid:
    """Options of a linear layer that writes codes on the signed form of a grid."""
    grid = grid.signed
    return {"out_scale": grid.scale, "out_zero": grid.zero, "out_low": grid.low, "out_high": grid.high}
