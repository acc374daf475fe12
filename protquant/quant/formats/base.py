"""Number formats: small values that say how a tensor is written, and the quantizers that they are fitted into."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any, ClassVar, NamedTuple, TypeVar

from torch import Tensor, nn

from protquant.errors import ProtquantError, suggestion
from protquant.quant.observers import Statistics
from protquant.quant.ranges import Calibration

__all__ = ["FORMATS", "Codes", "Format", "Quantizer", "StaticQuantizer", "format_from_config", "register_format"]


class Codes(NamedTuple):
    """Integers that stand for a tensor; `regions` says which piece a code counts in, where there are pieces."""

    codes: Tensor
    regions: Tensor | None = None


class Quantizer(nn.Module, ABC):
    """A format fitted to a site. Called, it returns what encoding and decoding would (simulation).

    Attributes
    ----------
    code_bits : int
        Bits of one element's code, the bit that names its region included.
    """

    code_bits: int

    @abstractmethod
    def freeze(self, x: Tensor) -> "StaticQuantizer":
        """Return the quantizer that `x` meets: itself, or one fitted to `x` where scales follow the input."""

    def dynamic_bits(self, _shape: tuple[int, ...]) -> int:
        """Bits of the scales that a tensor of this shape brings along; none where they are frozen."""
        return 0

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Quantize and dequantize; dtype and shape stay."""


class StaticQuantizer(Quantizer):
    """A quantizer whose grid does not depend on its input."""

    def freeze(self, x: Tensor) -> "StaticQuantizer":  # noqa: ARG002
        return self

    @abstractmethod
    def encode(self, x: Tensor) -> Codes:
        """Integer codes of finite values."""

    @abstractmethod
    def decode(self, encoded: Codes) -> Tensor:
        """Values of codes, float32."""

    @abstractmethod
    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """Ends of the grid, which broadcast against the input; None where there are none to speak of."""

    @abstractmethod
    def scale_bits(self) -> int:
        """Bits of all scales, zero points and breakpoints."""


class Format(ABC):
    """A frozen dataclass whose fields are its settings; `name` is what recipes call it."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def label(self) -> str:
        """A few words for tables."""

    @property
    @abstractmethod
    def code_bits(self) -> int:
        """Bits of one element's code, see `Quantizer.code_bits`."""

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

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain data, which `format_from_config` takes."""
        return {"format": self.name, **asdict(self)}  # type: ignore[call-overload]


FORMATS: dict[str, type[Format]] = {}

_FormatType = TypeVar("_FormatType", bound=type[Format])


def register_format(name: str) -> Callable[[_FormatType], _FormatType]:
    """Class decorator that makes a format known to recipes as `name`."""

    def register(cls: _FormatType) -> _FormatType:
        cls.name = name
        FORMATS[name] = cls
        return cls

    return register


def format_from_config(config: object) -> Format | None:
    """Format of a config such as `{"format": "uniform", "bits": 8}`; None, which leaves a site in float, stays None.

    Raises
    ------
    ProtquantError
        For a name or a setting that is not known, or a value that a setting cannot have.
    """
    if config is None or isinstance(config, Format):
        return config
    if not isinstance(config, Mapping) or "format" not in config:
        raise ProtquantError(f"a format is null or a mapping with the key 'format', not {config!r}")
    settings = {str(key): value for key, value in config.items() if key != "format"}
    name = str(config["format"])
    if name not in FORMATS:
        raise ProtquantError(f"unknown format {name!r}; {suggestion(name, sorted(FORMATS))}")
    cls = FORMATS[name]
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    for key, value in settings.items():
        if key not in known:
            raise ProtquantError(f"format {name!r} has no setting {key!r}; {suggestion(key, known)}")
        if isinstance(getattr(cls, key), bool) and not isinstance(value, bool):
            raise ProtquantError(f"format {name!r}: {key} is true or false, not {value!r}")
    return cls(**settings)
