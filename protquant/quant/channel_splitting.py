"""Split one input channel of a layer into several, or merge several into one, as FlattenQuant and QLLM do.

One channel far larger than all others makes the quantization step of the whole tensor large. Splitting it into smaller
pieces, each with a copy of its weight column, makes the step smaller and leaves the output of the layer unchanged. The
old channels keep their places; further pieces are appended in the order of their channels.

====================  =======================  =======================  ========================
`EqualSplit`          x / n in every piece     w in every piece         OCS, QLLM's disassembly
`SaturatingSplit`     clip(x, -T, T), then     w in every piece         FlattenQuant
                      the same of the rest
`WeightSplit`         x in every piece         clip(w, -T, T), ...      FlattenQuant's weights
`Merge`               the mean of several      their sum                QLLM's assembly; inexact
====================  =======================  =======================  ========================
"""

from typing import Self

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.quant.transforms import InputTransform

__all__ = ["EqualSplit", "Merge", "SaturatingSplit", "WeightSplit", "pieces_at", "thresholds_within"]

# Relative tolerance of a threshold: rounding must not give a channel that is a whole multiple of it one piece more.
_TOLERANCE = 1e-6


def pieces_at(maximum: Float[Tensor, " c"], threshold: float) -> Integer[Tensor, " c"]:
    """Return the number of pieces of every channel: ceil(maximum / threshold), at least 1.

    Raises
    ------
    ProtquantError
        If the threshold is not positive.
    """
    if not threshold > 0:
        raise ProtquantError(f"a threshold of channels must be positive, not {threshold}")
    return torch.ceil(maximum / threshold * (1 - _TOLERANCE)).long().clamp(min=1)


def thresholds_within(maximum: Float[Tensor, " c"], extra: int) -> list[float]:
    """Return the smallest thresholds that add at most 0, 1, ..., `extra` channels.

    A threshold T adds one channel for every pair (j, n >= 1) with maximum_j / n > T. So the smallest threshold that
    adds at most e channels is the (e + 1)-th largest of these quotients.
    """
    quotients = maximum.double()[:, None] / torch.arange(1, extra + 2, device=maximum.device)
    largest = quotients.flatten().topk(min(extra + 1, quotients.numel())).values
    return [threshold for threshold in largest.tolist() if threshold > 0]


def _appended(counts: Integer[Tensor, " c"]) -> tuple[Integer[Tensor, " d"], Integer[Tensor, " d"]]:
    """Return for every piece the index of its channel, and its number among the pieces of that channel."""
    old = torch.arange(len(counts), device=counts.device)
    further = old.repeat_interleave(counts - 1)
    ends = (counts - 1).cumsum(0)
    number = torch.arange(len(further), device=counts.device) - (ends - counts + 1)[further] + 1
    return torch.cat((old, further)), torch.cat((torch.zeros_like(old), number))


class EqualSplit(InputTransform):
    """Replaces channel j by n_j channels of x_j / n_j.

    Parameters
    ----------
    channel : Tensor, dtype=int, shape=(d,)
        Which channel each piece is of.
    divisor : Tensor, shape=(d,)
        n_j; infinity for a channel that only fills up a tile.
    """

    channel: Tensor
    divisor: Tensor

    def __init__(self, channel: Integer[Tensor, " d"], divisor: Float[Tensor, " d"]) -> None:
        super().__init__()
        self.register_buffer("channel", channel)
        self.register_buffer("divisor", divisor)

    @classmethod
    def of(cls, counts: Integer[Tensor, " c"], multiple: int = 1) -> "EqualSplit":
        """Return the split of channels into `counts` pieces; zero channels are added up to a `multiple`."""
        channel, _ = _appended(counts)
        filling = channel.new_zeros(-len(channel) % multiple)
        return cls(torch.cat((channel, filling)), torch.cat((counts[channel].float(), filling.float() + torch.inf)))

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... d"]:
        return x.index_select(-1, self.channel) / self.divisor.to(x.dtype)

    def columns(self, weight: Float[Tensor, "o c"]) -> Float[Tensor, "o d"]:
        return weight.index_select(1, self.channel) * self.divisor.isfinite().to(weight.dtype)


class _IntervalSplit(InputTransform):
    """Splits channels by magnitude, one piece between each two bounds; subclasses split inputs or weights."""

    channel: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, channel: Integer[Tensor, " d"], low: Float[Tensor, " d"], high: Float[Tensor, " d"]) -> None:
        super().__init__()
        self.register_buffer("channel", channel)
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    @classmethod
    def of(cls, counts: Integer[Tensor, " c"], threshold: float) -> Self:
        """Return the split of channels into `counts` pieces at multiples of `threshold`."""
        channel, number = _appended(counts)
        return cls(channel, *_intervals(channel, number, counts, threshold))


class SaturatingSplit(_IntervalSplit):
    """Replaces channel j by its parts of magnitude between 0 and T, between T and 2 T, ..., with its sign.

    Up to |x| = n T the sum of the n pieces is exactly x, because the differences are exact in floating point. Full
    pieces have the value T or -T, the ends of the range, which are on the grid of a symmetric format. The last piece
    has no upper bound, so that beyond n T the sum is x up to rounding.

    Parameters
    ----------
    channel : Tensor, dtype=int, shape=(d,)
        Which channel each piece is of.
    low, high : Tensor, shape=(d,)
        Bounds of the magnitude of each piece; infinity for the last of a channel.
    """

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... d"]:
        return _between(x.index_select(-1, self.channel), self.low.to(x.dtype), self.high.to(x.dtype))

    def columns(self, weight: Float[Tensor, "o c"]) -> Float[Tensor, "o d"]:
        return weight.index_select(1, self.channel)


class WeightSplit(_IntervalSplit):
    """Splits column j of the weight by magnitude: 0 to T, T to 2 T, ...; x_j is repeated.

    Parameters
    ----------
    channel, low, high : Tensor, shape=(d,)
        See `SaturatingSplit`; here magnitudes are of weights, divided by the largest magnitude of the weight.
    """

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... d"]:
        return x.index_select(-1, self.channel)

    def columns(self, weight: Float[Tensor, "o c"]) -> Float[Tensor, "o d"]:
        largest = weight.abs().amax().clamp(min=torch.finfo(weight.dtype).tiny)
        low, high = (end.to(weight.dtype) * largest for end in (self.low, self.high))
        return _between(weight.index_select(1, self.channel), low, high)


class Merge(InputTransform):
    """Replaces the channels of a group by their mean, and adds their weight columns.

    This changes the output of the layer, unless the channels of a group are equal or their columns are.

    Parameters
    ----------
    group : Tensor, dtype=int, shape=(c,)
        Index of the new channel of each channel.
    size : Tensor, shape=(d,)
        Number of channels that are merged into each new channel.
    """

    group: Tensor
    size: Tensor

    def __init__(self, group: Integer[Tensor, " c"], size: Float[Tensor, " d"]) -> None:
        super().__init__()
        self.register_buffer("group", group)
        self.register_buffer("size", size)

    @classmethod
    def of(cls, group: Integer[Tensor, " c"]) -> "Merge":
        """Return the merge into new channels of these indices."""
        return cls(group, torch.bincount(group).float())

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... d"]:
        total = x.new_zeros(*x.shape[:-1], len(self.size)).index_add(-1, self.group, x)
        return total / self.size.to(x.dtype)

    def columns(self, weight: Float[Tensor, "o c"]) -> Float[Tensor, "o d"]:
        return weight.new_zeros(len(weight), len(self.size)).index_add(1, self.group, weight)


def _intervals(
    channel: Integer[Tensor, " d"], number: Integer[Tensor, " d"], counts: Integer[Tensor, " c"], threshold: float
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Return the bounds of all pieces: multiples of the threshold, and infinity above the last piece of a channel."""
    low = number.double() * threshold
    high = torch.where(number == counts[channel] - 1, torch.inf, (number.double() + 1) * threshold)
    return low.float(), high.float()


def _between(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the part of values between two magnitudes, with the sign of the values."""
    return values.clamp(-high, high) - values.clamp(-low, low)
