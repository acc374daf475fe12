"""Uniform formats: equal steps, one scale per tensor, channel, token or group."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.kernels.reference import decode_uniform, encode_uniform
from protquant.quant.formats.base import Codes, Format, Quantizer, StaticQuantizer, register_format
from protquant.quant.observers import Statistics
from protquant.quant.ranges import Calibration, calibrated_range

__all__ = ["DynamicUniformQuantizer", "Uniform", "UniformQuantizer", "check_bits", "uniform_grid"]

Granularity = Literal["tensor", "channel", "token", "group"]
_GRANULARITIES = ("tensor", "channel", "token", "group")
_SCALE_BITS = 32


def check_bits(bits: object) -> None:
    """Raise `ProtquantError` unless `bits` is an integer from 2 to 16."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 16:
        raise ProtquantError(f"bits {bits!r} is not an integer from 2 to 16")


def uniform_grid(
    low: Tensor, high: Tensor, bits: int, symmetric: bool, full_range: bool = False
) -> tuple[Tensor, Tensor | None, int, int]:
    """Scale, zero point, and smallest and largest code of the grid that covers 0 and [low, high].

    A symmetric grid of values that are never negative has no negative codes.
    """
    low, high = low.double().clamp(max=0), high.double().clamp(min=0)
    zero_point = None
    if not symmetric:
        code_low, code_high = 0, 2**bits - 1
        scale = (high - low) / code_high
    elif bool((low >= 0).all()):
        code_low, code_high = 0, 2**bits - 1
        scale = high / code_high
    elif full_range:
        code_low, code_high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        scale = 2 * torch.maximum(-low, high) / (2**bits - 1)
    else:
        code_low, code_high = 1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1
        scale = torch.maximum(-low, high) / code_high
    # Nothing but zeros (or what float32 flushes to zero): any step will do, and 1 divides well.
    scale = torch.where(scale > torch.finfo(torch.float32).tiny, scale, 1.0)
    if not symmetric:
        zero_point = torch.round(-low / scale).int()
    return scale.float(), zero_point, code_low, code_high


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

    def _grouped(self, x: Tensor) -> Tensor:
        if self.group_size is None:
            return x
        if x.shape[-1] % self.group_size:
            raise ProtquantError(f"groups of {self.group_size} do not divide a last axis of {x.shape[-1]}")
        return x.reshape(*x.shape[:-1], -1, self.group_size)

    def encode(self, x: Tensor) -> Codes:
        codes = encode_uniform(self._grouped(x), self.scale, self.zero_point, *self.codes.tolist())
        return Codes(codes.reshape(x.shape))

    def decode(self, encoded: Codes) -> Tensor:
        values = decode_uniform(self._grouped(encoded.codes), self.scale, self.zero_point)
        return values.reshape(encoded.codes.shape)

    def bounds(self) -> tuple[Tensor, Tensor] | None:
        if self.group_size is not None:
            return None
        low, high = self.codes if self.zero_point is None else (code - self.zero_point for code in self.codes)
        return low * self.scale, high * self.scale

    def scale_bits(self) -> int:
        zero_bits = 0 if self.zero_point is None else self.zero_point.numel() * self.code_bits
        return self.scale.numel() * _SCALE_BITS + zero_bits

    def forward(self, x: Tensor) -> Tensor:
        # In place on what the first product allocates. The codes are kept relative to the zero point, which spares
        # the adding and the taking away; torch.fake_quantize_* does the same five times slower, and hides a NaN.
        low, high = self.codes.tolist()
        y = self._grouped(x).float().mul(self.scale.reciprocal()).round_()
        if self.zero_point is None:
            y.clamp_(low, high)
        elif self.zero_point.numel() == 1:
            zero = int(self.zero_point)
            y.clamp_(low - zero, high - zero)
        else:
            y.clamp_(low - self.zero_point, high - self.zero_point)
        return y.mul_(self.scale).to(x.dtype).reshape(x.shape)

    def extra_repr(self) -> str:
        return f"codes {self.codes.tolist()}, scale {tuple(self.scale.shape)}"


class DynamicUniformQuantizer(Quantizer):
    """Equal steps with a scale per vector along the last axis, taken from the vector itself."""

    def __init__(self, form: "Uniform") -> None:
        super().__init__()
        self.form = form
        self.code_bits = form.code_bits

    def freeze(self, x: Tensor) -> UniformQuantizer:
        low, high = x.detach().float().aminmax(dim=-1, keepdim=True)
        return self.form.fit(low, high)

    def dynamic_bits(self, shape: tuple[int, ...]) -> int:
        vectors = torch.Size(shape[:-1]).numel()
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
        row of a weight. A gain has one scale in any case.
    full_range : bool
        Symmetric with 2^bits - 1 steps from -m to m, as PTQ4Protein has it: m itself is clipped by half a step.
    """

    bits: int = 8
    symmetric: bool = True
    granularity: Granularity = "tensor"
    group_size: int | None = None
    full_range: bool = False

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if self.granularity not in _GRANULARITIES:
            raise ProtquantError(f"granularity {self.granularity!r} is none of {', '.join(_GRANULARITIES)}")
        if (self.granularity == "group") != (self.group_size is not None):
            raise ProtquantError("group_size goes with granularity 'group', and only with it")
        if self.group_size is not None and (not isinstance(self.group_size, int) or self.group_size < 1):
            raise ProtquantError(f"group_size {self.group_size!r} is not a positive integer")
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
    def needs_statistics(self) -> bool:
        return self.granularity != "token"

    def fit(self, low: Tensor, high: Tensor) -> UniformQuantizer:
        """Return the quantizer that covers ranges, shape as scales are to have."""
        grid = uniform_grid(low, high, self.bits, self.symmetric, self.full_range)
        return UniformQuantizer(*grid, code_bits=self.bits, group_size=self.group_size)

    def for_weight(self, weight: Tensor) -> UniformQuantizer:
        values = weight.detach().float()
        if self.granularity == "token":
            raise ProtquantError("granularity 'token' is for activations; for weights say 'channel'")
        if values.ndim < 2 or self.granularity == "tensor":
            form = Uniform(self.bits, self.symmetric, full_range=self.full_range)
            return form.fit(*values.aminmax())
        if self.group_size is not None:
            if values.shape[-1] % self.group_size:
                raise ProtquantError(f"groups of {self.group_size} do not divide rows of {values.shape[-1]}")
            return self.fit(*values.reshape(len(values), -1, self.group_size).aminmax(dim=-1, keepdim=True))
        low, high = values.flatten(1).aminmax(dim=1)
        shape = (-1, *[1] * (values.ndim - 1))
        return self.fit(low.view(shape), high.view(shape))

    def for_activation(self, statistics: Statistics | None, calibration: Calibration) -> Quantizer:
        if self.granularity == "token":
            return DynamicUniformQuantizer(self)
        if self.granularity == "group":
            raise ProtquantError("granularity 'group' is for weights; for activations say 'token' or 'channel'")
        if statistics is None:
            raise ProtquantError("a frozen scale needs calibration")
        if self.granularity == "channel":
            if statistics.channel_minimum is None or statistics.channel_maximum is None:
                raise ProtquantError("granularity 'channel' needs a last axis of one length; this one varies")
            return self.fit(statistics.channel_minimum, statistics.channel_maximum)
        sample = statistics.sample

        def error(low: float, high: float) -> float:
            quantizer = self.fit(torch.tensor(low), torch.tensor(high))
            difference: Tensor = quantizer(sample) - sample
            return difference.square().mean().item()

        low, high = calibrated_range(statistics, calibration, error)
        return self.fit(torch.tensor(low), torch.tensor(high))
