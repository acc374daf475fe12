"""dINT: an affine grid with two more levels at half a step from 0, where most weights are (Lee et al. 2023)."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.kernels.reference import affine_grid, decode_dint, dint_levels, encode_dint
from protquant.quant.formats.base import Codes, Format, StaticQuantizer, register_format
from protquant.quant.formats.frozen import fit_frozen
from protquant.quant.formats.granularity import (
    GroupSize,
    check_group,
    grouped,
    of_columns,
    ungrouped,
    weight_range,
)
from protquant.quant.observers import Statistics
from protquant.quant.ranges import Calibration

__all__ = ["DInt", "DIntQuantizer"]

_SCALE_BITS = 32


class DIntQuantizer(StaticQuantizer):
    """Uniform steps and two special levels, with frozen scales.

    Parameters
    ----------
    scale, zero_point : Tensor
        See `UniformQuantizer`; zero points are from 0 to 2^bits - 3.
    special : float
        The special levels, in steps.
    """

    scale: Tensor
    zero_point: Tensor
    group_size: int | None
    special: float

    def __init__(
        self,
        scale: Tensor,
        zero_point: Tensor,
        *,
        code_bits: int,
        special: float = 0.5,
        group_size: int | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)
        self.code_bits, self.special, self.group_size = code_bits, special, group_size

    def encode(self, x: Tensor) -> Codes:
        values = grouped(x, self.group_size)
        codes = encode_dint(values, self.scale, self.zero_point, self.code_bits, self.special)
        return Codes(ungrouped(codes, x.shape))

    def decode(self, encoded: Codes) -> Tensor:
        codes = grouped(encoded.codes, self.group_size)
        values = decode_dint(codes, self.scale, self.zero_point, self.code_bits, self.special)
        return ungrouped(values, encoded.codes.shape)

    def columns(self, index: Tensor) -> "DIntQuantizer":
        if self.group_size is None:
            return self
        scale, zero_point = (of_columns(each, index, self.group_size) for each in (self.scale, self.zero_point))
        return DIntQuantizer(scale, zero_point, code_bits=self.code_bits, special=self.special)

    def bounds(self) -> tuple[Tensor, Tensor] | None:
        if self.group_size is not None:
            return None
        low = torch.minimum(-self.zero_point.float(), self.scale.new_tensor(-self.special))
        high = torch.maximum(dint_levels(self.code_bits) - 1.0 - self.zero_point, self.scale.new_tensor(self.special))
        return low * self.scale, high * self.scale

    def levels(self) -> Tensor | None:
        if self.scale.numel() != 1:
            return None
        codes = torch.arange(2**self.code_bits, device=self.scale.device)
        scale, zero_point = self.scale.flatten(), self.zero_point.flatten()
        return decode_dint(codes, scale, zero_point, self.code_bits, self.special).sort().values

    def scale_bits(self) -> int:
        return self.scale.numel() * _SCALE_BITS + self.zero_point.numel() * self.code_bits

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.code_bits} bits, scale {tuple(self.scale.shape)}"


@register_format("dint")
@dataclass(frozen=True)
class DInt(Format):
    """Two of 2^bits codes stand for plus and minus `special` steps; the others are an affine grid that contains 0.

    The step is (2^bits - 1) / (2^bits - 3) times that of the affine grid of as many bits: large values have larger
    errors, and fewer small values are rounded to 0.

    Attributes
    ----------
    bits : int
        3 or 4, as in the paper, or up to 8; with more bits the two levels hardly matter.
    granularity : str
        One scale per `tensor`, per `channel` (an output row of a weight), or per `group` of `group_size` neighbors in a
        row. Activations have one frozen scale: `tensor`.
    special : float
        Magnitude of the special levels, in steps; 0.5 in the paper, which a multiplier implements by a shift. On ESM-2
        8M with only weights in 4 bits, contacts of 25 chains drift by 0.0057, 0.0052, 0.0051, 0.0054 for 0.25, 0.375,
        0.5, 0.625 (affine integers: 0.0058); in 3 bits by 0.0096, 0.0089, 0.0106, 0.0095 (affine integers: 0.0101).
    """

    bits: Annotated[int, Field(ge=3, le=8)] = 4
    granularity: Literal["tensor", "channel", "group"] = "channel"
    group_size: GroupSize | None = None
    special: Annotated[float, Field(gt=0, lt=1)] = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_group(self.granularity, self.group_size)

    @property
    def label(self) -> str:
        group = f" {self.group_size}" if self.group_size else ""
        special = "" if self.special == 0.5 else f" ({self.special:g})"
        return f"dint {self.bits}{special} per {self.granularity}{group}"

    @property
    def code_bits(self) -> int:
        return self.bits

    @classmethod
    def variants(cls) -> tuple[Format, ...]:
        return cls(3), cls(4), cls(4, "group", 32)

    def fit(self, low: Tensor, high: Tensor) -> DIntQuantizer:
        """Return the quantizer that covers ranges, in the shape of the scales."""
        scale, zero_point = affine_grid(low, high, dint_levels(self.bits))
        return DIntQuantizer(
            scale, zero_point, code_bits=self.bits, special=float(self.special), group_size=self.group_size
        )

    def for_weight(self, weight: Tensor) -> DIntQuantizer:
        if weight.ndim < 2:
            return replace(self, granularity="tensor", group_size=None).fit(*weight_range(weight, "tensor"))
        return self.fit(*weight_range(weight, self.granularity, self.group_size))

    def for_activation(self, statistics: Statistics | None, calibration: Calibration) -> DIntQuantizer:
        if self.granularity != "tensor":
            raise ProtquantError(f"dint per {self.granularity} is for weights; for activations say 'tensor'")
        return fit_frozen(statistics, calibration, self.fit)
