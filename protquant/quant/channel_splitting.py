"""Channels that become several, and several that become one: what FlattenQuant and QLLM do to what a layer reads.

A channel that leads all others makes the step of a tensor large for all. Spread over copies of itself, each of which
meets a copy of its weight column, it leads less, and what the layer computes stays. The old channels keep their places;
further pieces are appended in the order of their channels.

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

# Of a threshold: a channel that is a whole multiple of it takes as many pieces, whatever the last bit says.
_TOLERANCE = 1e-6


def pieces_at(maximum: Float[Tensor, " c"], threshold: float) -> Integer[Tensor, " c"]:
    """Number of pieces of every channel, ceil(maximum / threshold) and at least 1.

    Raises
    ------
    ProtquantError
        Where the threshold is not positive.
    """
    if not threshold > 0:
        raise ProtquantError(f"a threshold of channels must be positive, not {threshold}")
    return torch.ceil(maximum / threshold * (1 - _TOLERANCE)).long().clamp(min=1)


def thresholds_within(maximum: Float[Tensor, " c"], extra: int) -> list[float]:
    """The smallest thresholds that make 0, 1, ..., `extra` channels more, or fewer where channels are alike.

    A threshold T makes one channel more for every pair (j, n >= 1) with maximum_j / n > T, so that the smallest one
    that makes at most e more is the (e + 1)-th largest of these quotients.
    """
    quotients = maximum.double()[:, None] / torch.arange(1, extra + 2, device=maximum.device)
    largest = quotients.flatten().topk(min(extra + 1, quotients.numel())).values
    return [threshold for threshold in largest.tolist() if threshold > 0]


def _appended(counts: Integer[Tensor, " c"]) -> tuple[Integer[Tensor, " d"], Integer[Tensor, " d"]]:
    """For every piece its channel, and its number among those of the channel."""
    old = torch.arange(len(counts), device=counts.device)
    further = old.repeat_interleave(counts - 1)
    ends = (counts - 1).cumsum(0)
    number = torch.arange(len(further), device=counts.device) - (ends - counts + 1)[further] + 1
    return torch.cat((old, further)), torch.cat((torch.zeros_like(old), number))


class EqualSplit(InputTransform):
    """Channel j becomes n_j channels of x_j / n_j.

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
        """Split into `counts` pieces, filled up to a `multiple` of channels."""
        channel, _ = _appended(counts)
        filling = channel.new_zeros(-len(channel) % multiple)
        return cls(torch.cat((channel, filling)), torch.cat((counts[channel].float(), filling.float() + torch.inf)))

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... d"]:
        return x.index_select(-1, self.channel) / self.divisor.to(x.dtype)

    def columns(self, weight: Float[Tensor, "o c"]) -> Float[Tensor, "o d"]:
        return weight.index_select(1, self.channel) * self.divisor.isfinite().to(weight.dtype)


class _IntervalSplit(InputTransform):
    """Pieces of channels, each the part of magnitude between two bounds; subclasses say of what."""

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
        """Split at multiples of `threshold` into `counts` pieces."""
        channel, number = _appended(counts)
        return cls(channel, *_intervals(channel, number, counts, threshold))


class SaturatingSplit(_IntervalSplit):
    """Channel j becomes what it has between 0 and T, between T and 2 T, ... in magnitude, with its sign.

    The sum of the pieces is x, bit for bit up to n T: a difference of numbers that are neighboring multiples of T, or
    between such, is exact. All pieces that are full lie at the end of the range T and so on the grid of a symmetric
    format. The last takes all that is left, so that the sum is x (but for its last digit) beyond n T too.

    Parameters
    ----------
    channel : Tensor, dtype=int, shape=(d,)
        Which channel each piece is of.
    low, high : Tensor, shape=(d,)
        Magnitudes between which the piece lies; infinity for the last.
    """

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... d"]:
        return _between(x.index_select(-1, self.channel), self.low.to(x.dtype), self.high.to(x.dtype))

    def columns(self, weight: Float[Tensor, "o c"]) -> Float[Tensor, "o d"]:
        return weight.index_select(1, self.channel)


class WeightSplit(_IntervalSplit):
    """Column j of the weight becomes what it has between 0 and T, between T and 2 T, ...; x_j is repeated.

    Parameters
    ----------
    channel, low, high : Tensor, shape=(d,)
        As of `SaturatingSplit`, of weights, in units of the largest of the weight.
    """

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... d"]:
        return x.index_select(-1, self.channel)

    def columns(self, weight: Float[Tensor, "o c"]) -> Float[Tensor, "o d"]:
        largest = weight.abs().amax().clamp(min=torch.finfo(weight.dtype).tiny)
        low, high = (end.to(weight.dtype) * largest for end in (self.low, self.high))
        return _between(weight.index_select(1, self.channel), low, high)


class Merge(InputTransform):
    """Channels of a group become one, their mean; their weight columns are added.

    This does NOT leave what the layer computes: it is as good as the channels of a group are alike, or their columns.

    Parameters
    ----------
    group : Tensor, dtype=int, shape=(c,)
        Index of the new channel of each.
    size : Tensor, shape=(d,)
        How many channels each new one is made of.
    """

    group: Tensor
    size: Tensor

    def __init__(self, group: Integer[Tensor, " c"], size: Float[Tensor, " d"]) -> None:
        super().__init__()
        self.register_buffer("group", group)
        self.register_buffer("size", size)

    @classmethod
    def of(cls, group: Integer[Tensor, " c"]) -> "Merge":
        """Merge by index of the new channel."""
        return cls(group, torch.bincount(group).float())

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... d"]:
        total = x.new_zeros(*x.shape[:-1], len(self.size)).index_add(-1, self.group, x)
        return total / self.size.to(x.dtype)

    def columns(self, weight: Float[Tensor, "o c"]) -> Float[Tensor, "o d"]:
        return weight.new_zeros(len(weight), len(self.size)).index_add(1, self.group, weight)


def _intervals(
    channel: Integer[Tensor, " d"], number: Integer[Tensor, " d"], counts: Integer[Tensor, " c"], threshold: float
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Ends of every piece: multiples of the threshold, infinity for the last of a channel."""
    low = number.double() * threshold
    high = torch.where(number == counts[channel] - 1, torch.inf, (number.double() + 1) * threshold)
    return low.float(), high.float()


def _between(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """What values have between two magnitudes, with their sign."""
    return values.clamp(-high, high) - values.clamp(-low, low)
