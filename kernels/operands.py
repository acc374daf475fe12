"""What integer operations work on: grids of eight bits at most, codes, and weights of small integers."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Activation", "Codes8", "Grid", "IntegerWeight", "TokenGrid", "WeightCodes", "spread", "unpack4"]

Activation = Literal["none", "relu", "gelu"]
WeightCodes = Literal["int8", "int4", "dint4"]


@dataclass(frozen=True)
class Grid:
    """Codes `low` to `high` of one frozen scale: a value is `(code - zero) * scale`.

    Raises
    ------
    ValueError
        For codes that do not lie in -128 .. 127 or in 0 .. 255.
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
        """The same grid, its codes moved into 0 .. 255: what the matrix instructions of CPUs read."""
        move = 128 if self.low < 0 else 0
        return Grid(self.scale, self.zero + move, self.low + move, self.high + move)

    @cached_property
    def signed(self) -> "Grid":
        """The same grid, its codes moved into -128 .. 127: what the matrix instructions of GPUs read."""
        move = 128 if self.high > 127 else 0
        return Grid(self.scale, self.zero - move, self.low - move, self.high - move)

    def stretched(self, factor: float) -> "Grid":
        """The grid of the values times `factor`, which is positive."""
        return replace(self, scale=self.scale * factor)


@dataclass(frozen=True)
class TokenGrid:
    """Codes of a scale of each row's own making: symmetric, or affine over the row's range widened to hold 0."""

    bits: int
    symmetric: bool

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"{self.bits} bits are not in 2 to 8")


@dataclass(frozen=True)
class Codes8:
    """A matrix in codes of one byte.

    Attributes
    ----------
    data : Tensor, shape=(m, k), dtype=uint8 or int8
        As the backend that made it likes them.
    scale : Tensor, shape=(1,) or (m,)
        Of the matrix, or of every row.
    zero : Tensor of int32, shape as of scale
        The code in `data` that means 0.
    """

    data: Int[Tensor, "m k"]
    scale: Float[Tensor, " s"]
    zero: Int[Tensor, " s"]

    def decode(self) -> Float[Tensor, "m k"]:
        """Values, float32."""
        return (self.data.float() - self.zero[:, None]) * self.scale[:, None]


@dataclass(frozen=True)
class IntegerWeight:
    """The weight of a linear layer in small integers.

    Attributes
    ----------
    codes : Tensor, shape=(n, k) of int8, or (ceil(n / 2), k) of uint8
        Four-bit codes share a byte by rows: row i in the low half, row i + ceil(n / 2) in the high one, so that
        unpacking is two passes over contiguous memory.
    scale : Tensor, shape=(n, g), float32
        Of g groups of neighbors in a row.
    zero : Tensor, shape=(n, g), or None
        The code that means 0, of the type of the codes; None: 0.
    bias : Tensor, shape=(n,), float32, or None
    out_features : int
    kind : str
        What the codes are: `int8`; `int4`, from 0 to 15; `dint4`: full steps from 0 to 13, 14 for minus and 15 for
        plus half a step (`protquant.kernels.reference.dint`).
    group_size : int or None
        None: one group.
    """

    codes: Int[Tensor, "r k"]
    scale: Float[Tensor, "n g"]
    zero: Int[Tensor, "n g"] | None
    bias: Float[Tensor, " n"] | None
    out_features: int
    kind: WeightCodes = "int8"
    group_size: int | None = None

    @property
    def in_features(self) -> int:
        """Channels that the layer reads."""
        return self.codes.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and zero points."""
        parts = (self.codes, self.scale, self.zero)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def steps(self) -> Int[Tensor, "n k"]:
        """What the codes count, int8: `weight = steps * step_scale`, less `zero` where the codes have eight bits."""
        if self.kind == "int8":
            return self.codes
        codes = unpack4(self.codes, self.out_features).view(torch.int8)
        zero = 0 if self.zero is None else spread(self.zero.view(torch.int8), self.group_size, self.in_features)
        if self.kind == "int4":
            return codes.sub_(zero)
        # Doubled, so that half a step is an integer; the two special codes are the ends.
        doubled = (codes - zero).mul_(2)
        doubled.masked_fill_(codes == 14, -1)
        return doubled.masked_fill_(codes == 15, 1)

    @property
    def step_scale(self) -> Float[Tensor, "n g"]:
        """Scale of `steps`."""
        return self.scale / 2 if self.kind == "dint4" else self.scale

    def decode(self) -> Float[Tensor, "n k"]:
        """The weight, float32."""
        steps = self.steps().float()
        if self.kind == "int8" and self.zero is not None:
            steps = steps - spread(self.zero.float(), self.group_size, self.in_features)
        return steps * spread(self.step_scale, self.group_size, self.in_features)

    @classmethod
    def pack4(cls, codes: Int[Tensor, "n k"]) -> Int[Tensor, "h k"]:
        """Two rows to a byte of codes from 0 to 15, as `codes` of `int4` and `dint4`."""
        half = -(-len(codes) // 2)
        low, high = codes[:half].to(torch.uint8), codes[half:].to(torch.uint8)
        packed = low.clone()
        packed[: len(high)] |= high << 4
        return packed


def unpack4(packed: Int[Tensor, "h k"], rows: int) -> Int[Tensor, "n k"]:
    """Return the codes from 0 to 15, dtype uint8, that `IntegerWeight.pack4` packed; `rows` is their number of rows."""
    half = len(packed)
    codes = torch.empty(2 * half, packed.shape[1], dtype=torch.uint8, device=packed.device)
    torch.bitwise_and(packed, 15, out=codes[:half])
    torch.bitwise_right_shift(packed, 4, out=codes[half:])
    return codes[:rows]


def spread(values: Tensor, group_size: int | None, channels: int) -> Tensor:
    """Values of groups, shape (n, g), as they broadcast against channels: (n, 1) or (n, channels)."""
    if group_size is None:
        return values
    return values.repeat_interleave(group_size, dim=1)[:, :channels]
