"""Operands of integer operations: grids of at most eight bits, codes, and weights of small integers."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from protquant.kernels.packing import unpack4

__all__ = [
    "Activation",
    "ByteGrid",
    "Codes8",
    "Direction",
    "Grid",
    "IntegerWeight",
    "TokenGrid",
    "WeightCodes",
    "spread",
]

Activation = Literal["none", "relu", "gelu"]
WeightCodes = Literal["int8", "int4", "dint4"]
Direction = Literal["outgoing", "incoming"]
"""Edges that a triangle multiplication sums over."""

# Kernels round by adding and subtracting 1.5 * 2^23, which works for this number of steps on either side of 0.
_MOST_STEPS = 2**22


@dataclass(frozen=True)
class Grid:
    """Codes from `low` to `high` with one fixed scale: a value is `(code - zero) * scale`.

    Raises
    ------
    ValueError
        If the codes do not lie in -128 .. 127 or in 0 .. 255, or the scale is not positive.
    """

    scale: float
    zero: int
    low: int
    high: int

    def __post_init__(self) -> None:
        if not (-128 <= self.low <= self.high <= 127 or 0 <= self.low <= self.high <= 255):
            raise ValueError(f"codes from {self.low} to {self.high} are neither signed nor unsigned bytes")
        if not self.scale > 0:
            raise ValueError(f"a scale is positive, not {self.scale}")

    @cached_property
    def unsigned(self) -> "Grid":
        """The same grid with codes in 0 .. 255, which the matrix instructions of CPUs read."""
        move = 128 if self.low < 0 else 0
        return Grid(self.scale, self.zero + move, self.low + move, self.high + move)

    @cached_property
    def signed(self) -> "Grid":
        """The same grid with codes in -128 .. 127, which the matrix instructions of GPUs read."""
        move = 128 if self.high > 127 else 0
        return Grid(self.scale, self.zero - move, self.low - move, self.high - move)

    def stretched(self, factor: float) -> "Grid":
        """Return the grid of the values times `factor`, which is positive."""
        return replace(self, scale=self.scale * factor)


@dataclass(frozen=True)
class TokenGrid:
    """Codes with a scale that each row computes: symmetric, or affine over the row's range, extended to include 0."""

    bits: int
    symmetric: bool

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"{self.bits} bits are not in 2 to 8")


@dataclass(frozen=True)
class ByteGrid:
    """Piecewise linear grid of one byte, in plain numbers: the fields of `protquant.quant.formats.TailedGrid`.

    Attributes
    ----------
    scale, zero_point, low, high
        The middle: its step, the code of 0, and the smallest and the largest code.
    left_scale, right_scale
        Steps of the tails; 0 means no tail.
    tail_high
        The largest code of a tail. Code 0 of a tail is the end of the middle.

    Raises
    ------
    ValueError
        If a step is not positive, the middle has no codes or is too far from 0, or a byte cannot hold all levels.
    """

    scale: float
    zero_point: int
    low: int
    high: int
    left_scale: float
    right_scale: float
    tail_high: int

    def __post_init__(self) -> None:
        if not self.scale > 0 or self.left_scale < 0 or self.right_scale < 0:
            raise ValueError(
                f"steps of {self.scale} in the middle, {self.left_scale} and {self.right_scale} in the tails: "
                "the first must be positive, the others positive or, for no tail, 0"
            )
        if self.low > self.high or self.tail_high < 0:
            raise ValueError(f"codes {self.low} to {self.high}, and 0 to {self.tail_high} in tails, are none")
        if max(abs(self.low - self.zero_point), abs(self.high - self.zero_point)) >= _MOST_STEPS:
            raise ValueError(f"the middle is {_MOST_STEPS} steps or more away from 0: float32 does not count so far")
        if self.levels > 256:
            raise ValueError(
                f"{self.left_codes} codes of a left tail, {self.high - self.low + 1} of the middle and "
                f"{self.right_codes} of a right tail are {self.levels} levels, more than the 256 of a byte"
            )

    @property
    def left_codes(self) -> int:
        """Number of bytes of the left tail, which is also the byte of the middle's lower end."""
        return self.tail_high if self.left_scale else 0

    @property
    def right_codes(self) -> int:
        """Number of bytes of the right tail."""
        return self.tail_high if self.right_scale else 0

    @property
    def levels(self) -> int:
        """Number of levels; their bytes are 0 to this less one."""
        return self.left_codes + self.high - self.low + 1 + self.right_codes


@dataclass(frozen=True)
class Codes8:
    """A matrix in codes of one byte.

    Attributes
    ----------
    data : Tensor, shape=(m, k), dtype=uint8 or int8
        Codes, of the type that the backend prefers.
    scale : Tensor, shape=(1,) or (m,)
        Scale of the matrix, or of each row.
    zero : Tensor of int32, shape as of scale
        The code in `data` that means 0.
    """

    data: Integer[Tensor, "m k"]
    scale: Float[Tensor, " s"]
    zero: Integer[Tensor, " s"]

    def decode(self) -> Float[Tensor, "m k"]:
        """Return the float32 values."""
        return (self.data.float() - self.zero[:, None]) * self.scale[:, None]


@dataclass(frozen=True)
class IntegerWeight:
    """The weight of a linear layer in small integers.

    Attributes
    ----------
    codes : Tensor, shape=(n, k) of int8, or (ceil(n / 2), k) of uint8
        Four-bit codes are packed by `protquant.kernels.packing.pack4`.
    scale : Tensor, shape=(n, g), float32
        Scales of g groups of neighbors in a row.
    zero : Tensor, shape=(n, g), or None
        The code that means 0, in the type of the codes; None for 0.
    bias : Tensor, shape=(n,), float32, or None
    out_features : int
    kind : str
        Meaning of the codes. `int8`; `int4`: 0 to 15; `dint4`: 0 to 13 are full steps, 14 and 15 are minus and plus
        half a step (`protquant.kernels.reference.dint`).
    group_size : int or None
        Number of channels of a group; None for one group.
    """

    codes: Integer[Tensor, "r k"]
    scale: Float[Tensor, "n g"]
    zero: Integer[Tensor, "n g"] | None
    bias: Float[Tensor, " n"] | None
    out_features: int
    kind: WeightCodes = "int8"
    group_size: int | None = None

    @property
    def in_features(self) -> int:
        """Number of input channels."""
        return self.codes.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and zero points."""
        parts = (self.codes, self.scale, self.zero)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def steps(self) -> Integer[Tensor, "n k"]:
        """Return int8 steps: `weight = steps * step_scale`; from eight-bit codes, `zero` is not subtracted yet."""
        if self.kind == "int8":
            return self.codes
        codes = unpack4(self.codes, self.out_features).view(torch.int8)
        zero = 0 if self.zero is None else spread(self.zero.view(torch.int8), self.group_size, self.in_features)
        if self.kind == "int4":
            return codes.sub_(zero)
        # Steps are doubled, so that half a step is an integer; the two special codes come last.
        doubled = (codes - zero).mul_(2)
        doubled.masked_fill_(codes == 14, -1)
        return doubled.masked_fill_(codes == 15, 1)

    @property
    def step_scale(self) -> Float[Tensor, "n g"]:
        """Scale of `steps`."""
        return self.scale / 2 if self.kind == "dint4" else self.scale

    def decode(self) -> Float[Tensor, "n k"]:
        """Return the float32 weight."""
        steps = self.steps().float()
        if self.kind == "int8" and self.zero is not None:
            steps = steps - spread(self.zero.float(), self.group_size, self.in_features)
        return steps * spread(self.step_scale, self.group_size, self.in_features)


def spread(values: Tensor, group_size: int | None, channels: int) -> Tensor:
    """Return values of groups, shape (n, g), in a shape that broadcasts to channels: (n, 1) or (n, channels)."""
    if group_size is None:
        return values
    return values.repeat_interleave(group_size, dim=1)[:, :channels]
