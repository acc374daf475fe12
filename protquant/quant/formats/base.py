"""Number formats: small values that say how a tensor is written, and the quantizers that they are fitted into."""

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
    """Integers that stand for a tensor, and what else of the tensor itself is needed to decode them.

    Attributes
    ----------
    codes : Tensor
        One per element, less the outliers where there are any.
    regions : Tensor or None
        Which piece a code counts in, where there are pieces.
    scales, zero_points : Tensor or None
        What a dynamic format took from the tensor; frozen ones are with the quantizer.
    outliers, indices : Tensor or None
        Of each vector along the last axis: what was taken out of it, in its scale, and from where, ascending.
    """

    codes: Tensor
    regions: Tensor | None = None
    scales: Tensor | None = None
    zero_points: Tensor | None = None
    outliers: Tensor | None = None
    indices: Tensor | None = None


class Quantizer(Storable, ABC):
    """A format fitted to a site. Called, it returns what encoding and decoding would (simulation).

    Its state follows `protquant.quant.storable`, so that it can be saved; scales keep their type when a model is cast.

    Attributes
    ----------
    code_bits : int
        Bits of one element's code, the bit that names its region included.
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
        """Return the quantizer that `x` meets: itself, or one fitted to `x` where scales follow the input."""

    @abstractmethod
    def encode(self, x: Tensor) -> Codes:
        """Integer codes of finite values; the pairs of region and code that occur fit in `code_bits`."""

    @abstractmethod
    def decode(self, encoded: Codes) -> Tensor:
        """Values of codes, float32."""

    def dynamic_bits(self, _shape: tuple[int, ...]) -> int:
        """Bits that a tensor of this shape takes beyond `code_bits` per element: scales and outliers of its own."""
        return 0

    def tensor_bits(self, shape: tuple[int, ...]) -> int:
        """Bits that a tensor of this shape takes; frozen scales, which serve every tensor, count for nothing."""
        return self.code_bits * torch.Size(shape).numel() + self.dynamic_bits(shape)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Quantize and dequantize; dtype and shape stay."""


class StaticQuantizer(Quantizer):
    """A quantizer whose grid does not depend on its input."""

    def freeze(self, x: Tensor) -> "StaticQuantizer":  # noqa: ARG002
        return self

    def columns(self, index: Tensor) -> "StaticQuantizer":  # noqa: ARG002
        """Return the quantizer of these columns of a weight alone; itself, unless columns differ in their scales."""
        return self

    @abstractmethod
    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """Ends of the grid, which broadcast against the input; None where there are none to speak of."""

    def levels(self) -> Tensor | None:
        """All different values that codes decode to, ascending; None where scales differ, or there are too many."""
        return None

    @abstractmethod
    def scale_bits(self) -> int:
        """Bits of all scales, zero points and breakpoints, as they are saved: 32 for a float32."""


FORMATS: dict[str, "type[Format]"] = {}


class Format(Named):
    """A frozen dataclass whose fields are its settings; `name` is what recipes call it."""

    key = "format"
    registry = FORMATS

    @property
    @abstractmethod
    def label(self) -> str:
        """A few words for tables."""

    @property
    @abstractmethod
    def code_bits(self) -> int:
        """Bits of one element's code, see `Quantizer.code_bits`."""

    @property
    def num_levels(self) -> int:
        """How many different values a tensor of one scale can take; those of outliers are not counted."""
        return int(2**self.code_bits)

    @classmethod
    def variants(cls) -> "tuple[Format, ...]":
        """Settings that show what the format can do, for tables and pictures."""
        return (cls(),)

    @property
    def needs_statistics(self) -> bool:
        """Whether the scales of activations are frozen after calibration."""
        return True

    @abstractmethod
    def for_weight(self, weight: Tensor) -> StaticQuantizer:
        """Fit to a weight, shape (out, in), or a gain, shape (c,)."""

    @abstractmethod
    def for_activation(self, statistics: Statistics | None, calibration: Calibration) -> Quantizer:
        """Fit to what was seen of an activation; None will do where `needs_statistics` is False."""


register_format = Format.register


def format_from_config(config: object) -> Format | None:
    """Return the format of a config such as `{"format": "uniform", "bits": 8}`; None, which is float, stays None.

    Raises
    ------
    ProtquantError
        For a name or a setting that is not known, or a value that a setting cannot have.
    """
    return None if config is None else Format.from_config(config)
