"""Eight-bit floating point, scaled so that the largest magnitude becomes the largest float8 value."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.kernels.reference import decode_float8, encode_float8, positive_scale
from protquant.quant.formats.base import Codes, Format, Quantizer, StaticQuantizer, register_format
from protquant.quant.formats.frozen import fit_frozen
from protquant.quant.formats.granularity import (
    magnitude,
    vector_range,
    weight_range,
)
from protquant.quant.observers import Statistics
from protquant.quant.ranges import Calibration

__all__ = ["DynamicFloat8Quantizer", "Float8", "Float8Quantizer"]

Layout = Literal["e4m3fn", "e5m2"]
_DTYPES = {"e4m3fn": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
_SCALE_BITS = 32


class Float8Quantizer(StaticQuantizer):
    """Casts `x / scale` to float8, with a frozen scale that broadcasts against the input."""

    scale: Tensor
    layout: str
    code_bits: int = 8

    def __init__(self, scale: Tensor, layout: Layout) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.layout = layout

    @property
    def _dtype(self) -> torch.dtype:
        return _DTYPES[self.layout]

    def encode(self, x: Tensor) -> Codes:
        return Codes(encode_float8(x, self.scale, self._dtype))

    def decode(self, encoded: Codes) -> Tensor:
        return decode_float8(encoded.codes, self.scale, self._dtype)

    def bounds(self) -> tuple[Tensor, Tensor]:
        end = self.scale * torch.finfo(self._dtype).max
        return -end, end

    def levels(self) -> Tensor | None:
        if self.scale.numel() != 1:
            return None
        codes = torch.arange(256, dtype=torch.uint8, device=self.scale.device)
        values = decode_float8(codes, self.scale.flatten(), self._dtype)
        return values[values.isfinite()].unique()  # `unique` sorts, and merges the two zeros.

    def scale_bits(self) -> int:
        return self.scale.numel() * _SCALE_BITS

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.layout}, scale {tuple(self.scale.shape)}"


class DynamicFloat8Quantizer(Quantizer):
    """Casts to float8 with a scale that is computed for each vector along the last axis."""

    form: "Float8"
    code_bits: int = 8

    def __init__(self, form: "Float8") -> None:
        super().__init__()
        self.form = form

    def freeze(self, x: Tensor) -> Float8Quantizer:
        return self.form.fit(*vector_range(x))

    def encode(self, x: Tensor) -> Codes:
        frozen = self.freeze(x)
        return frozen.encode(x)._replace(scales=frozen.scale)

    def decode(self, encoded: Codes) -> Tensor:
        if encoded.scales is None:
            raise ValueError("codes of a dynamic format come with scales")
        return decode_float8(encoded.codes, encoded.scales, _DTYPES[self.form.layout])

    def dynamic_bits(self, shape: tuple[int, ...]) -> int:
        return torch.Size(shape[:-1]).numel() * _SCALE_BITS

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.freeze(x)(x)
        return y


@register_format("float8")
@dataclass(frozen=True)
class Float8(Format):
    """Eight-bit floating point. Large values saturate; they never become infinity or NaN.

    Attributes
    ----------
    layout : str
        `e4m3fn`: 3 bits of mantissa; the largest value is 448 times the scale, the smallest 2^-9 times. `e5m2`: 2 bits
        of mantissa; 57,344 times and 2^-16 times.
    granularity : str
        One scale per `tensor`; per `channel`: an output row of a weight; or per `token`: a vector along the last axis
        of an activation, computed at run time. A gain always has one scale.
    """

    layout: Layout = "e4m3fn"
    granularity: Literal["tensor", "channel", "token"] = "tensor"

    @property
    def label(self) -> str:
        return f"float8 {self.layout} per {self.granularity}"

    @property
    def code_bits(self) -> int:
        return 8

    @property
    def num_levels(self) -> int:
        # The two zeros are one value. e4m3fn has two codes for NaN; e5m2 has eight for infinity and NaN.
        return 256 - 1 - (2 if self.layout == "e4m3fn" else 8)

    @classmethod
    def variants(cls) -> tuple[Format, ...]:
        return cls("e4m3fn", "channel"), cls("e5m2", "channel"), cls("e4m3fn", "token")

    @property
    def needs_statistics(self) -> bool:
        return self.granularity != "token"

    def fit(self, low: Tensor, high: Tensor) -> Float8Quantizer:
        """Return the quantizer that covers ranges, shape as scales are to have."""
        scale = magnitude(low.double(), high.double()) / torch.finfo(_DTYPES[self.layout]).max
        return Float8Quantizer(positive_scale(scale).float(), self.layout)

    def for_weight(self, weight: Tensor) -> Float8Quantizer:
        form = replace(self, granularity="tensor") if weight.ndim < 2 and self.granularity == "channel" else self
        return form.fit(*weight_range(weight, form.granularity))

    def for_activation(self, statistics: Statistics | None, calibration: Calibration) -> Quantizer:
        if self.granularity == "token":
            return DynamicFloat8Quantizer(self)
        if self.granularity == "channel":
            raise ProtquantError("granularity 'channel' of float8 is for weights; for activations say 'token'")
        return fit_frozen(statistics, calibration, self.fit)
