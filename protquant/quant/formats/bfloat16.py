"""bfloat16: the exponent of float32 with 8 bits of precision; it has no scales."""

from dataclasses import dataclass

import torch
from torch import Tensor

from protquant.quant.formats.base import Codes, Format, StaticQuantizer, register_format
from protquant.quant.observers import Statistics
from protquant.quant.ranges import Calibration

__all__ = ["BFloat16", "BFloat16Quantizer"]


class BFloat16Quantizer(StaticQuantizer):
    """Casts to bfloat16 and back."""

    code_bits: int = 16

    def encode(self, x: Tensor) -> Codes:
        return Codes(x.to(torch.bfloat16).view(torch.int16))

    def decode(self, encoded: Codes) -> Tensor:
        return encoded.codes.view(torch.bfloat16).float()

    def bounds(self) -> None:
        return None

    def scale_bits(self) -> int:
        return 0

    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.bfloat16).to(x.dtype)


@register_format("bfloat16")
@dataclass(frozen=True)
class BFloat16(Format):
    """Values rounded to bfloat16."""

    @property
    def label(self) -> str:
        return "bfloat16"

    @property
    def code_bits(self) -> int:
        return 16

    @property
    def num_levels(self) -> int:
        # The two zeros are one value, and the largest exponent (2^7 codes of either sign) means infinity or NaN.
        return 2**16 - 2 * 2**7 - 1

    @property
    def needs_statistics(self) -> bool:
        return False

    def for_weight(self, weight: Tensor) -> BFloat16Quantizer:  # noqa: ARG002
        return BFloat16Quantizer()

    def for_activation(
        self,
        statistics: Statistics | None,  # noqa: ARG002
        calibration: Calibration,  # noqa: ARG002
    ) -> BFloat16Quantizer:
        return BFloat16Quantizer()
