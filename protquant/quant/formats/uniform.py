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
    """Quantizer with equal steps and frozen scales.

    Parameters
    ----------
    scale, zero_point : Tensor
        They broadcast against the input, or with `group_size` against (..., groups, group_size).
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
        # All steps work in place on the result of the first product. Codes are relative to the zero point, which saves
        # adding and subtracting it. torch.fake_quantize_* takes five times as long, and hides NaN.
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
    """Quantizer with equal steps that computes a scale for each vector along the last axis, or group in it."""

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
        Whether 0 is the middle code; a tensor without negative values uses all codes for values from 0 on. Otherwise
        the range is [min, max], widened to contain 0, and 0 is on the grid.
    granularity : str
        One scale per `tensor`; per `channel`: an output row of a weight, or an index of the last axis of an activation
        (with the min-max range, whatever the calibration rule); per `token`: a vector along the last axis of an
        activation, computed at run time; or per `group` of `group_size` neighbors in a row of a weight or in a token
        (computed at run time for tokens; the last group may be shorter). A gain always has one scale.
    full_range : bool
        Symmetric with 2^bits - 1 steps from -m to m, as in PTQ4Protein: m itself is clipped by half a step.
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
        """Return the quantizer that covers ranges, in the shape of the scales."""
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
