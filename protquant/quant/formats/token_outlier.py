"""Tokens with outliers: few bits for most values of a vector, 16 for its largest ones (AAQ of LightNobel, 2025)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.kernels.reference import (
    OutlierCodes,
    decode_token_outlier,
    encode_token_outlier,
    outlier_index_dtype,
    token_scale,
)
from protquant.quant.formats.base import Codes, Format, Quantizer, StaticQuantizer, register_format
from protquant.quant.observers import Statistics
from protquant.quant.ranges import Calibration
from protquant.quant.settings import Natural

__all__ = ["FrozenTokenOutlierQuantizer", "TokenOutlier", "TokenOutlierQuantizer"]

_SCALE_BITS = 16
_OUTLIER_BITS = 16


def _encode(x: Tensor, scales: Tensor, bits: int, outliers: int) -> Codes:
    encoded = encode_token_outlier(x, scales, bits, outliers)
    return Codes(encoded.codes, scales=encoded.scales, outliers=encoded.outliers, indices=encoded.indices)


def _decode(encoded: Codes) -> Tensor:
    codes, _, scales, _, outliers, indices = encoded
    if scales is None or outliers is None or indices is None:
        raise ValueError("codes of tokens with outliers come with scales, outliers and their indices")
    return decode_token_outlier(OutlierCodes(codes, scales, outliers, indices))


class FrozenTokenOutlierQuantizer(StaticQuantizer):
    """Quantizer with the scales of one tensor, shape (..., 1); outliers are chosen for each input."""

    scale: Tensor
    outliers: int

    def __init__(self, scale: Tensor, bits: int, outliers: int) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.code_bits, self.outliers = bits, outliers

    def encode(self, x: Tensor) -> Codes:
        return _encode(x, self.scale.expand(*x.shape[:-1], 1), self.code_bits, self.outliers)

    def decode(self, encoded: Codes) -> Tensor:
        return _decode(encoded)

    def bounds(self) -> None:
        return None

    def levels(self) -> Tensor | None:
        if self.scale.numel() != 1:
            return None
        largest = 2 ** (self.code_bits - 1) - 1
        return torch.arange(-largest, largest + 1, device=self.scale.device) * self.scale.flatten().float()

    def scale_bits(self) -> int:
        return self.scale.numel() * _SCALE_BITS

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x)).to(x.dtype)


class TokenOutlierQuantizer(Quantizer):
    """Quantizer that computes scales and outliers from each input."""

    form: "TokenOutlier"

    def __init__(self, form: "TokenOutlier") -> None:
        super().__init__()
        self.form = form
        self.code_bits = form.bits

    def freeze(self, x: Tensor) -> FrozenTokenOutlierQuantizer:
        return FrozenTokenOutlierQuantizer(self._scale(x), self.form.bits, self.form.outliers)

    def encode(self, x: Tensor) -> Codes:
        return _encode(x.detach(), self._scale(x), self.form.bits, self.form.outliers)

    def decode(self, encoded: Codes) -> Tensor:
        return _decode(encoded)

    def dynamic_bits(self, shape: tuple[int, ...]) -> int:
        outliers = min(self.form.outliers, shape[-1])
        index_bits = torch.iinfo(outlier_index_dtype(shape[-1])).bits
        # An outlier has no inlier code.
        extra = _SCALE_BITS + outliers * (_OUTLIER_BITS + index_bits - self.code_bits)
        return torch.Size(shape[:-1]).numel() * extra

    def forward(self, x: Tensor) -> Tensor:
        # Inliers and outliers have the same step, and with the scale of its own token no value exceeds its code: both
        # can be rounded alike.
        scale = self._scale(x).float()
        return x.float().mul(scale.reciprocal()).round_().mul_(scale).to(x.dtype)

    def _scale(self, x: Tensor) -> Tensor:
        return token_scale(x.detach(), self.form.bits, self.form.outliers)


@register_format("token_outlier")
@dataclass(frozen=True)
class TokenOutlier(Format):
    """Signed codes with one scale per token (a vector along the last axis), and its largest values in 16 bits.

    A token of 128 channels takes 138 bytes in LightNobel's group A (8 bits, 4 outliers), 76 in B (4 bits, 4 outliers)
    and 66 in C (4 bits, none): a scale of 16 bits, the inliers, the outliers of 16 bits and their indices of 8 bits
    (16 from 257 channels on).

    The paper does not say how outliers are scaled, but its bytes leave no room for a second scale. So here they have
    the step of the inliers, see `protquant.kernels.reference.token_outlier`. A finer scale of their own would lower the
    squared error by at most 3 % (4 of 128 values).

    Attributes
    ----------
    bits : int
        Bits of an inlier, 2 to 8.
    outliers : int
        Number of outliers of each token. In a token with no more channels than that, every value is an outlier.
    """

    # At most 8 bits, because scales are rounded to bfloat16: with more bits the largest inlier might not get the
    # largest code.
    bits: Annotated[int, Field(ge=2, le=8)] = 8
    outliers: Natural = 4

    @property
    def label(self) -> str:
        return f"token {self.bits} + {self.outliers} outliers"

    @property
    def code_bits(self) -> int:
        return self.bits

    @property
    def num_levels(self) -> int:
        return int(2**self.bits) - 1

    @classmethod
    def variants(cls) -> tuple[Format, ...]:
        return cls(8, 4), cls(4, 4), cls(4, 0)

    @property
    def needs_statistics(self) -> bool:
        return False

    def for_weight(self, weight: Tensor) -> StaticQuantizer:  # noqa: ARG002
        raise ProtquantError("format 'token_outlier' is for activations; for weights say 'uniform' or 'dint'")

    def for_activation(
        self,
        statistics: Statistics | None,  # noqa: ARG002
        calibration: Calibration,  # noqa: ARG002
    ) -> TokenOutlierQuantizer:
        return TokenOutlierQuantizer(self)
