"""Operands as Triton kernels read them: weights with their sums, and the numbers of grids on a device."""

from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8, Integer, UInt8
from torch import Tensor

from protquant.kernels.operands import Codes8, Grid, IntegerWeight, WeightCodes
from protquant.kernels.packing import pack_nibbles, unpack4

__all__ = ["KernelWeight", "check_reads", "numbers", "on_grid", "with_unit_columns"]

# Steps of four-bit weights from 0, of dINT in halves.
_MOST_STEPS = 30
# With zero points both factors take up to 255 steps, and 32 bits hold this many products of them.
_MOST_CHANNELS = (2**31 - 1) // 255**2


@dataclass(frozen=True)
class KernelWeight:
    """The weight of a linear layer as kernels read it; rows are output channels.

    Attributes
    ----------
    codes : Tensor, shape=(n, k), dtype=int8, or (n, ceil(k / 2)), dtype=uint8
        Codes of four bits are packed by `pack_nibbles`.
    scale : Tensor, shape=(n,), or (n, g) of codes of four bits, float32
        A step per output channel, or per output channel and group.
    zero : Tensor of int32, shape=(n,), or of uint8, shape=(n, g), or None
        The codes that mean 0; None for 0.
    sums : Tensor of integers, shape as of scale
        Sums of steps from 0 over the channels of a group, which a zero point of the input needs; of dINT half steps.
    bias : Tensor, shape=(n,), or None
    kind : str
        "int8", "int4", or "dint4": codes 14 and 15 mean half a step to either side of 0.
    channels : int
        k: two numbers of channels have the same number of bytes.
    group_size : int
        Channels of a group.
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
        """The same weight.

        Raises
        ------
        ValueError
            For eight bits in several groups, groups of four bits that share a byte, and sums that may pass 32 bits.
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
        # Rows of a byte are far apart in the weight; the kernel reads neighbors.
        codes = pack_nibbles(unpack4(weight.codes, weight.out_features))
        steps = F.pad(weight.steps(), (0, -channels % size)).view(len(codes), -1, size)
        sums = steps.sum(2, dtype=torch.int16 if size * _MOST_STEPS <= torch.iinfo(torch.int16).max else torch.int32)
        return cls(codes, scale, zero, sums, weight.bias, weight.kind, channels, size)

    @property
    def nbytes(self) -> int:
        """Bytes of all but the bias."""
        parts = (self.codes, self.scale, self.zero, self.sums)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def part(self, rows: slice) -> "KernelWeight":
        """The weight of some output channels."""
        zero, bias = (None if each is None else each[rows] for each in (self.zero, self.bias))
        return replace(self, codes=self.codes[rows], scale=self.scale[rows], zero=zero, sums=self.sums[rows], bias=bias)


def check_reads(channels: int, weight: KernelWeight) -> None:
    """Raise ValueError where a layer does not read as many channels as the input has."""
    if channels != weight.channels:
        raise ValueError(f"x has {channels} channels, and the weight reads {weight.channels}")


def on_grid(codes: Int8[Tensor, "m n"], grid: Grid) -> Codes8:
    """Codes that are on the signed form of a grid."""
    return Codes8(codes, *_both_numbers(grid, codes.device))


def numbers(grid: Grid, device: torch.device) -> tuple[Float[Tensor, " 1"], Integer[Tensor, " 1"] | None]:
    """Scale and zero point of a grid's signed form on a device; None for a zero point of 0: kernels leave it out."""
    scale, zero = _both_numbers(grid, device)
    return scale, zero if grid.signed.zero else None


@cache
def _both_numbers(grid: Grid, device: torch.device) -> tuple[Float[Tensor, " 1"], Integer[Tensor, " 1"]]:
    # Kept on the device: copying them there with every call would take longer than many a kernel runs.
    zero = torch.tensor([grid.signed.zero], dtype=torch.int32, device=device)
    return torch.tensor([grid.scale], dtype=torch.float32, device=device), zero


def with_unit_columns(x: Tensor) -> Tensor:
    """`x`, or a copy of it whose neighbors in a row are neighbors in memory."""
    return x if x.stride(-1) == 1 else x.contiguous()
