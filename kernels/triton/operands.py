"""Operands of Triton kernels: weights with their sums, and scales and zero points of grids on a device."""

from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8, Integer, UInt8
from torch import Tensor

from protquant.kernels.operands import Codes8, Grid, IntegerWeight, WeightCodes
from protquant.kernels.packing import pack_nibbles, unpack4

__all__ = ["KernelWeight", "check_reads", "numbers", "on_grid", "with_unit_columns"]

# Largest number of steps from 0 of a four-bit weight; half steps for dINT.
_MOST_STEPS = 30
# With zero points, both factors have up to 255 steps; 32 bits hold the sum of this many products.
_MOST_CHANNELS = (2**31 - 1) // 255**2


@dataclass(frozen=True)
class KernelWeight:
    """The weight of a linear layer in the layout of the kernels; rows are output channels.

    Attributes
    ----------
    codes : Tensor, shape=(n, k), dtype=int8, or (n, ceil(k / 2)), dtype=uint8
        `pack_nibbles` packs codes of four bits.
    scale : Tensor, shape=(n,), or (n, g) for codes of four bits, float32
        One scale per output channel, or per output channel and group.
    zero : Tensor of int32, shape=(n,), or of uint8, shape=(n, g), or None
        The codes that mean 0; None for 0.
    sums : Tensor of integers, shape as of scale
        Sums of steps from 0 (half steps for dINT) over the channels of a group, for a zero point of the input.
    bias : Tensor, shape=(n,), or None
    kind : str
        "int8", "int4", or "dint4", where codes 14 and 15 are minus and plus half a step.
    channels : int
        Number k of channels, which packed codes do not determine.
    group_size : int
        Number of channels of a group.
    """

    codes: Int8[Tensor, "n k"] | UInt8[Tensor, "n half"]
    scale: Float[Tensor, " n"] | Float[Tensor, "n g"]
    zero: Integer[Tensor, "n ..."] | None
    sums: Integer[Tensor, "n ..."]
    bias: Float[Tensor, " n"] | None
    kind: WeightCodes
    channels: int
    group_size: int

    @classmethod
    def of(cls, weight: IntegerWeight) -> "KernelWeight":
        """Return the same weight in this layout.

        Raises
        ------
        ValueError
            If codes of eight bits have several groups, groups of four bits share a byte, or sums may exceed 32 bits.
        """
        channels = weight.in_features
        size = min(weight.group_size or channels, channels)
        if weight.kind == "int8":
            if size < channels:
                raise ValueError(f"kernels have no groups of eight-bit weights, and this has groups of {size}")
            if channels > _MOST_CHANNELS:
                raise ValueError(f"sums over {channels} channels may pass 32 bits; at most {_MOST_CHANNELS} do not")
            codes, zero = weight.codes.contiguous(), None if weight.zero is None else weight.zero[:, 0].int()
            sums = codes.sum(1, dtype=torch.int32)
            sums = sums if zero is None else sums - channels * zero
            return cls(codes, weight.scale[:, 0].float().contiguous(), zero, sums, weight.bias, "int8", channels, size)
        if size % 2 and size < channels:
            raise ValueError(f"group_size {size} is not even, so that a byte would belong to two groups")
        scale = weight.scale.float().contiguous()
        zero = torch.zeros_like(scale, dtype=torch.uint8) if weight.zero is None else weight.zero.contiguous()
        # `pack4` puts distant rows into one byte; the kernel needs neighbors of a row.
        codes = pack_nibbles(unpack4(weight.codes, weight.out_features))
        steps = F.pad(weight.steps(), (0, -channels % size)).view(len(codes), -1, size)
        sums = steps.sum(2, dtype=torch.int16 if size * _MOST_STEPS <= torch.iinfo(torch.int16).max else torch.int32)
        return cls(codes, scale, zero, sums, weight.bias, weight.kind, channels, size)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors except the bias."""
        parts = (self.codes, self.scale, self.zero, self.sums)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def part(self, rows: slice) -> "KernelWeight":
        """Return the weight of these output channels."""
        zero, bias = (None if each is None else each[rows] for each in (self.zero, self.bias))
        return replace(self, codes=self.codes[rows], scale=self.scale[rows], zero=zero, sums=self.sums[rows], bias=bias)


def check_reads(channels: int, weight: KernelWeight) -> None:
    """Raise ValueError if the input has another number of channels than the weight reads."""
    if channels != weight.channels:
        raise ValueError(f"x has {channels} channels, and the weight reads {weight.channels}")


def on_grid(codes: Int8[Tensor, "m n"], grid: Grid) -> Codes8:
    """Return `data` as codes on the signed form of a grid."""
    return Codes8(codes, *_both_numbers(grid, codes.device))


def numbers(grid: Grid, device: torch.device) -> tuple[Float[Tensor, " 1"], Integer[Tensor, " 1"] | None]:
    """Return scale and zero point of a grid's signed form on a device; the zero point is None if it is 0."""
    scale, zero = _both_numbers(grid, device)
    return scale, zero if grid.signed.zero else None


@cache
def _both_numbers(grid: Grid, device: torch.device) -> tuple[Float[Tensor, " 1"], Integer[Tensor, " 1"]]:
    # Cached on the device: a copy for every call would take longer than many kernels.
    zero = torch.tensor([grid.signed.zero], dtype=torch.int32, device=device)
    return torch.tensor([grid.scale], dtype=torch.float32, device=device), zero


def with_unit_columns(x: Tensor) -> Tensor:
    """Return `x`, or a copy of it, with a column stride of 1."""
    return x if x.stride(-1) == 1 else x.contiguous()
