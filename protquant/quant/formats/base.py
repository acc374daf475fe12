"""Number formats: settings that describe the encoding of a tensor, and quantizers, which are fitted formats."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor

from protquant.quant.observers import Statistics
from protquant.quant.ranges import Calibration
from protquant.quant.settings import Named
from protquant.quant.storable import Storable

__all__ = ["FORMATS", "Codes", "Format", "Quantizer", "StaticQuantizer", "format_from_config", "register_format"]


class Codes(NamedTuple):
    """Integers that stand for a tensor, with the scales and outliers of that tensor.

    Attributes
    ----------
    codes : Tensor
        One code per element that is not an outlier.
    regions : Tensor or None
        Piece of the format that each code belongs to, for formats with pieces.
    scales, zero_points : Tensor or None
        Scales and zero points of a dynamic format, computed from the tensor; the quantizer has frozen ones.
    outliers, indices : Tensor or None
        Outliers of each vector along the last axis, in units of its scale, and their indices, ascending.
    """

    codes: Tensor
    regions: Tensor | None = None
    scales: Tensor | None = None
    zero_points: Tensor | None = None
    outliers: Tensor | None = None
    indices: Tensor | None = None


class Quantizer(Storable, ABC):
    """A format fitted to a site. A call simulates quantization: it returns the decoded codes of its input.

    Its state follows the rules of `protquant.quant.storable`, so that it can be saved. Casting a model does not change
    the type of scales.

    Attributes
    ----------
    code_bits : int
        Bits of one element's code, including the bit for its region.
    """

    code_bits: int

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in exact.items():
            moved = self._buffers[name]
            if buffer is not None and moved is not None and moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        return self

    @abstractmethod
    def freeze(self, x: Tensor) -> "StaticQuantizer":
        """Return a quantizer with fixed scales for `x`: itself, or one fitted to `x` if scales are dynamic."""

    @abstractmethod
    def encode(self, x: Tensor) -> Codes:
        """Return integer codes of finite values; all pairs of region and code together fit in `code_bits`."""

    @abstractmethod
    def decode(self, encoded: Codes) -> Tensor:
        """Return the values of codes, float32."""

    def dynamic_bits(self, _shape: tuple[int, ...]) -> int:
        """Return the bits for scales and outliers of one tensor of this shape, beyond `code_bits` per element."""
        return 0

    def tensor_bits(self, shape: tuple[int, ...]) -> int:
        """Return the bits of a tensor of this shape, without frozen scales, which all tensors share."""
        return self.code_bits * torch.Size(shape).numel() + self.dynamic_bits(shape)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Quantize and dequantize; return the same dtype and shape."""


class StaticQuantizer(Quantizer):
    """A quantizer whose grid does not depend on its input."""

    def freeze(self, x: Tensor) -> "StaticQuantizer":  # noqa: ARG002
        return self

    def columns(self, index: Tensor) -> "StaticQuantizer":  # noqa: ARG002
        """Return the quantizer of these columns of a weight: itself, unless columns have different scales."""
        return self

    @abstractmethod
    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """Return the ends of the grid, broadcastable to the input; None if there are none, or several per row."""

    def levels(self) -> Tensor | None:
        """Return all distinct values of codes, ascending; None if scales differ, or there are too many."""
        return None

    @abstractmethod
    def scale_bits(self) -> int:
        """Return the stored bits of all scales, zero points and breakpoints: 32 for a float32."""


FORMATS: dict[str, "type[Format]"] = {}


class Format(Named):
    """Base of formats: frozen dataclasses whose fields are settings; `name` is the name in recipes."""

    key = "format"
    registry = FORMATS

    @property
    @abstractmethod
    def label(self) -> str:
        """Short description for tables."""

    @property
    @abstractmethod
    def code_bits(self) -> int:
        """Bits of one element's code, see `Quantizer.code_bits`."""

    @property
    def num_levels(self) -> int:
        """Number of distinct values of a tensor with one scale, without outliers."""
        return int(2**self.code_bits)

    @classmethod
    def variants(cls) -> "tuple[Format, ...]":
        """Return typical settings of the format, for tables and figures."""
        return (cls(),)

    @property
    def needs_statistics(self) -> bool:
        """Whether the scales of activations are frozen after calibration."""
        return True

    @abstractmethod
    def for_weight(self, weight: Tensor) -> StaticQuantizer:
        """Return the quantizer of a weight, shape (out, in), or of a gain, shape (c,)."""

    @abstractmethod
    def for_activation(self, statistics: Statistics | None, calibration: Calibration) -> Quantizer:
        """Return the quantizer of an activation; `statistics` may be None if `needs_statistics` is False."""


register_format = Format.register


def format_from_config(config: object) -> Format | None:
    """Return the format of a config such as `{"format": "uniform", "bits": 8}`; None means float and stays None.

    Raises
    ------
    ProtquantError
        For a name or a setting that is not known, or a value that a setting cannot have.
    """
    return None if config is None else Format.from_config(config)
