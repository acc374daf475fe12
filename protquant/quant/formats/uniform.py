"""Uniform formats: equal steps, one scale per tensor, channel, token or group."""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.kernels.reference import decode_uniform, encode_uniform, uniform_grid
from protquant.quant.formats.base import Codes, Format, Quantizer, StaticQuantizer, register_format
from protquant.quant.formats.frozen import fit_frozen
from protquant.quant.formats.granularity import (
    Granularity,
    GroupSize,
    check_group,
    grouped,
    of_columns,
    ungrouped,
    vector_range,
    weight_range,
)
from protquant.quant.observers import Statistics
from protquant.quant.ranges import Calibration

__all__ = [
    "Bits",
    "DynamicUniformQuantizer",
    "Uniform",
    "UniformQuantizer",
]

_SCALE_BITS = 32

Bits = Annotated[int, Field(ge=2, le=16)]


class UniformQuantizer(StaticQuantizer):
    """Equal steps with frozen scales.

    Parameters
    ----------
    scale, zero_point : Tensor
        Broadcast against the input or, where `group_size` is given, against (..., groups, group_size).
    low, high : int
        The smallest and the largest code.
    """

    scale: Tensor
    zero_point: Tensor | None
    codes: Tensor
    group_size: int | None

    def __init__(
        self,
        scale: Tensor,
        zero_point: Tensor | None,
        low: int,
        high: int,
        *,
        code_bits: int,
        group_size: int | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)
        self.register_buffer("codes", torch.tensor([low, high], dtype=torch.int32))
        self.code_bits = code_bits
        self.group_size = group_size

    def encode(self, x: Tensor) -> Codes:
        codes = encode_uniform(grouped(x, self.group_size), self.scale, self.zero_point, *self.codes.tolist())
        return Codes(ungrouped(codes, x.shape))

    def decode(self, encoded: Codes) -> Tensor:
        values = decode_uniform(grouped(encoded.codes, self.group_size), self.scale, self.zero_point)
        return ungrouped(values, encoded.codes.shape)

    def columns(self, index: Tensor) -> "UniformQuantizer":
        if self.group_size is None:
            return self
        zero_point = None if self.zero_point is None else of_columns(self.zero_point, index, self.group_size)
        scale = of_columns(self.scale, index, self.group_size)
        low, high = self.codes.tolist()
        return UniformQuantizer(scale, zero_point, low, high, code_bits=self.code_bits)

    def bounds(self) -> tuple[Tensor, Tensor] | None:
        if self.group_size is not None:
            return None
        low, high = self.codes if self.zero_point is None else (code - self.zero_point for code in self.codes)
        return low * self.scale, high * self.scale

    def levels(self) -> Tensor | None:
        if self.scale.numel() != 1:
            return None
        low, high = self.codes.tolist()
        codes = torch.arange(low, high + 1, dtype=torch.int32, device=self.scale.device)
        zero_point = None if self.zero_point is None else self.zero_point.flatten()
        return decode_uniform(codes, self.scale.flatten(), zero_point)

    def scale_bits(self) -> int:
        zero_bits = 0 if self.zero_point is None else self.zero_point.numel() * self.code_bits
        return self.scale.numel() * _SCALE_BITS + zero_bits

    def forward(self, x: Tensor) -> Tensor:
        # In place on what the first product allocates. The codes are kept relative to the zero point, which spares
        # the adding and the taking away; torch.fake_quantize_* does the same five times slower, and hides a NaN.
        low, high = self.codes.tolist()
        y = grouped(x, self.group_size).float().mul(self.scale.reciprocal()).round_()
        if self.zero_point is None:
            y.clamp_(low, high)
        elif self.zero_point.numel() == 1:
            zero = int(self.zero_point)
            y.clamp_(low - zero, high - zero)
        else:
            y.clamp_(low - self.zero_point, high - self.zero_point)
        return ungrouped(y.mul_(self.scale).to(x.dtype), x.shape)

    def extra_repr(self) -> str:
        return f"codes {self.codes.tolist()}, scale {tuple(self.scale.shape)}"


class DynamicUniformQuantizer(Quantizer):
    """Equal steps with a scale per vector along the last axis, or per group in it, taken from the vector itself."""

    form: "Uniform"

    def __init__(self, form: "Uniform") -> None:
        super().__init__()
        self.form = form
        self.code_bits = form.code_bits

    def freeze(self, x: Tensor) -> UniformQuantizer:
        return self.form.fit(*vector_range(x, self.form.group_size))

    def encode(self, x: Tensor) -> Codes:
        frozen = self.freeze(x)
        return frozen.encode(x)._replace(scales=frozen.scale, zero_points=frozen.zero_point)

    def decode(self, encoded: Codes) -> Tensor:
        codes = encoded.codes
        if encoded.scales is None:
            raise ValueError("codes of a dynamic format come with scales")
        values = decode_uniform(grouped(codes, self.form.group_size), encoded.scales, encoded.zero_points)
        return ungrouped(values, codes.shape)

    def dynamic_bits(self, shape: tuple[int, ...]) -> int:
        vectors = torch.Size(shape[:-1]).numel() * -(-shape[-1] // (self.form.group_size or shape[-1] or 1))
        return vectors * (_SCALE_BITS + (0 if self.form.symmetric else self.form.bits))

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() == 0:
            return x
        y: Tensor = self.freeze(x)(x)
        return y


@register_format("uniform")
@dataclass(frozen=True)
class Uniform(Format):
    """Equal steps.

    Attributes
    ----------
    symmetric : bool
        Whether 0 is the middle code; values that are never negative get all codes for themselves. Otherwise the
        range is [min, max] widened to hold 0, which is on the grid.
    granularity : str
        What shares a scale: the `tensor`; a `channel`, which of a weight is an output row and of an activation an
        index of the last axis (its range is all that was seen, whatever the calibration rule); a `token`, a vector
        along the last axis of an activation, with a scale of its own making; a `group` of `group_size` neighbors in a
        row of a weight or in a token, which has scales of its own making then; the last of a row may be shorter. A
        gain has one scale in any case.
    full_range : bool
        Symmetric with 2^bits - 1 steps from -m to m, as PTQ4Protein has it: m itself is clipped by half a step.
    """

    bits: Bits = 8
    symmetric: bool = True
    granularity: Granularity = "tensor"
    group_size: GroupSize | None = None
    full_range: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_group(self.granularity, self.group_size)
        if self.full_range and not self.symmetric:
            raise ProtquantError("full_range is a variant of symmetric formats")

    @property
    def label(self) -> str:
        shape = "symmetric" if self.symmetric else "affine"
        group = f" {self.group_size}" if self.group_size else ""
        return f"uniform {self.bits} {shape}{'-255' if self.full_range else ''} per {self.granularity}{group}"

    @property
    def code_bits(self) -> int:
        return self.bits

    @property
    def num_levels(self) -> int:
        return int(2**self.bits) - int(self.symmetric and not self.full_range)

    @classmethod
    def variants(cls) -> tuple[Format, ...]:
        return (
            *(cls(bits, granularity="channel") for bits in (2, 3, 4, 6, 8)),
            cls(8, granularity="channel", full_range=True),
            cls(4, symmetric=False, granularity="channel"),
            cls(4, symmetric=False, granularity="group", group_size=32),
            cls(4, granularity="token"),
            cls(8, granularity="token"),
        )

    @property
    def needs_statistics(self) -> bool:
        return self.granularity not in ("token", "group")

    def fit(self, low: Tensor, high: Tensor) -> UniformQuantizer:
        """Return the quantizer that covers ranges, shape as scales are to have."""
        grid = uniform_grid(low, high, self.bits, self.symmetric, self.full_range)
        return UniformQuantizer(*grid, code_bits=self.bits, group_size=self.group_size)

    def for_weight(self, weight: Tensor) -> UniformQuantizer:
        if weight.ndim < 2 and self.granularity != "token":
            gain = replace(self, granularity="tensor", group_size=None)
            return gain.fit(*weight_range(weight, "tensor"))
        return self.fit(*weight_range(weight, self.granularity, self.group_size))

    def for_activation(self, statistics: Statistics | None, calibration: Calibration) -> Quantizer:
        if not self.needs_statistics:
            return DynamicUniformQuantizer(self)
        if self.granularity == "tensor":
            return fit_frozen(statistics, calibration, self.fit)
        if statistics is None:
            raise ProtquantError("frozen scales need calibration")
        if statistics.channel_minimum is None or statistics.channel_maximum is None:
            raise ProtquantError("granularity 'channel' needs a last axis of one length; this one varies")
        return self.fit(statistics.channel_minimum, statistics.channel_maximum)
