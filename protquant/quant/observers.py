"""Statistics of one site: gathered in one pass over each tensor, in bounded memory, reproducibly."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from protquant.errors import ProtquantError

__all__ = ["Digest", "Moments", "Observer", "Statistics"]

_MAX_ROWS = 32
SAMPLE_SEED = 20_231


class Moments(NamedTuple):
    """Extremes and spreads. One-sided spreads are about 0: the sigma of a half-normal distribution."""

    minimum: float
    maximum: float
    std: float
    rms: float
    negative_rms: float
    positive_rms: float

    @classmethod
    def of(cls, x: Tensor) -> "Moments":
        """Return the moments of one tensor."""
        return _Sums.of(x.detach().float()).moments()


class _Sums(NamedTuple):
    number: int
    minimum: float
    maximum: float
    total: float
    squares: float
    positive_squares: float
    num_positive: float
    num_negative: float

    @classmethod
    def of(cls, x: Tensor) -> "_Sums":
        norm = torch.linalg.vector_norm
        # Counted through signs, because comparisons take ten times as long on a CPU.
        sign = x.sign()
        facts = (*x.aminmax(), x.sum(), norm(x), norm(x.clamp(min=0)), sign.sum(), sign.abs_().sum())
        minimum, maximum, total, length, positive_length, surplus, nonzero = torch.stack(
            [fact.double() for fact in facts]
        ).tolist()
        num_positive, num_negative = (nonzero + surplus) / 2, (nonzero - surplus) / 2
        return cls(x.numel(), minimum, maximum, total, length**2, positive_length**2, num_positive, num_negative)

    def plus(self, other: "_Sums") -> "_Sums":
        return _Sums(
            self.number + other.number,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.total + other.total,
            self.squares + other.squares,
            self.positive_squares + other.positive_squares,
            self.num_positive + other.num_positive,
            self.num_negative + other.num_negative,
        )

    def moments(self) -> Moments:
        mean, mean_square = self.total / self.number, self.squares / self.number
        negative_squares = max(self.squares - self.positive_squares, 0.0)
        return Moments(
            self.minimum,
            self.maximum,
            std=max(mean_square - mean**2, 0.0) ** 0.5,
            rms=mean_square**0.5,
            negative_rms=(negative_squares / max(self.num_negative, 1)) ** 0.5,
            positive_rms=(self.positive_squares / max(self.num_positive, 1)) ** 0.5,
        )


@dataclass(frozen=True)
class Statistics:
    """Statistics of one site.

    Attributes
    ----------
    count : int
        Number of values.
    lowest, highest : tuple of Tensor, shape=(<= depth,)
        Smallest values of every sequence, ascending, and largest values, descending.
    channel_minimum, channel_maximum : Tensor, shape=(c,), or None
        Extremes per channel (last axis); None if the length of that axis varies, as for attention.
    sample : Tensor, shape=(n,)
        Uniform sample of all values.
    rows : tuple of Tensor, shape=(c,)
        Vectors along the last axis, sampled from all calls, for formats with a scale per vector.
    width : int or None
        Mean length of the last axis if values were only counted; there are no rows then.
    """

    count: int
    mean: float
    moments: Moments
    lowest: tuple[Tensor, ...]
    highest: tuple[Tensor, ...]
    channel_minimum: Tensor | None
    channel_maximum: Tensor | None
    sample: Tensor
    rows: tuple[Tensor, ...]
    width: int | None = None

    @classmethod
    def counted(cls, count: int, width: int) -> "Statistics":
        """Return the statistics of a site whose values were only counted."""
        nothing = Moments(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        return cls(count, 0.0, nothing, (), (), None, None, torch.empty(0), (), width)

    @property
    def minimum(self) -> float:
        """Smallest value."""
        return self.moments.minimum

    @property
    def maximum(self) -> float:
        """Largest value."""
        return self.moments.maximum


class Digest(NamedTuple):
    """Results of one pass over a tensor; sites that read the same tensor share them."""

    sums: _Sums
    lowest: Tensor
    highest: Tensor
    channel_minimum: Tensor
    channel_maximum: Tensor

    @classmethod
    def of(cls, x: Tensor, depth: int) -> "Digest":
        """Return the digest of one tensor, shape (..., c), with its `depth` smallest and largest values."""
        rows = x.detach().float().reshape(-1, x.shape[-1])
        return cls(
            _Sums.of(rows),
            _most_extreme(rows, depth, largest=False).cpu(),
            _most_extreme(rows, depth, largest=True).cpu(),
            rows.amin(0).cpu(),
            rows.amax(0).cpu(),
        )


def _most_extreme(x: Tensor, depth: int, largest: bool) -> Tensor:
    """Return the `depth` largest values of `x`, shape (n, c), descending; or the smallest, ascending."""
    if x.shape[0] > depth:  # They are in the `depth` rows whose extremes are the largest (or smallest).
        extremes = x.amax(-1) if largest else x.amin(-1)
        x = x[extremes.topk(depth, largest=largest).indices]
    return x.flatten().topk(min(depth, x.numel()), largest=largest).values


class Observer:
    """Gathers the `Statistics` of one site.

    Parameters
    ----------
    site : str
        Name of the site, for messages.
    depth : int
        Number of smallest and largest values to store per sequence, an upper limit of `top_k`.
    sample_size : int
        Maximal size of the sample.
    """

    def __init__(self, site: str, depth: int = 64, sample_size: int = 2**15) -> None:
        self.site = site
        self.depth = depth
        self.sample_size = sample_size
        self._sums: _Sums | None = None
        self._lowest: list[Tensor] = []
        self._highest: list[Tensor] = []
        self._sequence: tuple[Tensor, Tensor] | None = None
        self._channels: tuple[Tensor, Tensor] | None = None
        self._channels_vary = False
        self._sample = torch.empty(0)
        self._rate = 1.0
        self._rows: list[Tensor] = []
        self._row_stride = 1
        self._num_calls = 0
        # Each site has its own generator, so that its sample does not depend on which other sites are observed.
        self._generator = torch.Generator().manual_seed(SAMPLE_SEED)

    @property
    def has_seen(self) -> bool:
        """Whether there were any values."""
        return self._sums is not None

    def update(self, x: Tensor, digest: Digest | None = None) -> None:
        """Add one tensor, shape (..., c); `digest` is its digest if it is known from another site."""
        if x.numel() == 0:
            return
        digest = digest or Digest.of(x, self.depth)
        rows, sums = x.detach().reshape(-1, x.shape[-1]), digest.sums
        if not torch.isfinite(torch.tensor([sums.minimum, sums.maximum])).all():
            raise ProtquantError(
                f"site {self.site}: a value is not finite (minimum {sums.minimum}, maximum {sums.maximum}); "
                "calibrate with a model and a dtype that do not overflow"
            )
        self._sums = sums if self._sums is None else self._sums.plus(sums)
        self._see_extremes(digest.lowest, digest.highest)
        self._see_channels(digest.channel_minimum, digest.channel_maximum)
        self._draw(rows)
        self._num_calls += 1

    def end_sequence(self) -> None:
        """End a sequence: the calls since the last end belong to one sequence."""
        if self._sequence is not None:
            self._lowest.append(self._sequence[0])
            self._highest.append(self._sequence[1])
            self._sequence = None

    def statistics(self) -> Statistics:
        """Return the statistics of all tensors so far.

        Raises
        ------
        ProtquantError
            If there were no values.
        """
        self.end_sequence()
        if self._sums is None:
            raise ProtquantError(f"site {self.site}: nothing passed through it during calibration")
        channels = (None, None) if self._channels is None or self._channels_vary else self._channels
        return Statistics(
            count=self._sums.number,
            mean=self._sums.total / self._sums.number,
            moments=self._sums.moments(),
            lowest=tuple(self._lowest),
            highest=tuple(self._highest),
            channel_minimum=channels[0],
            channel_maximum=channels[1],
            sample=self._sample,
            rows=tuple(self._rows),
        )

    def _see_extremes(self, lowest: Tensor, highest: Tensor) -> None:
        if self._sequence is not None:
            lowest, highest = torch.cat((self._sequence[0], lowest)), torch.cat((self._sequence[1], highest))
        self._sequence = (
            lowest.sort().values[: self.depth].clone(),
            highest.sort(descending=True).values[: self.depth].clone(),
        )

    def _see_channels(self, lowest: Tensor, highest: Tensor) -> None:
        if self._channels_vary:
            return
        if self._channels is None:
            self._channels = (lowest, highest)
        elif self._channels[0].shape != lowest.shape:
            self._channels_vary = True
        else:
            self._channels = (self._channels[0].minimum(lowest), self._channels[1].maximum(highest))

    def _random_indices(self, high: int, number: int) -> Tensor:
        return torch.randint(high, (number,), generator=self._generator)

    def _draw(self, rows: Tensor) -> None:
        """Add a random share of `rows` to the sample; halve the sample and the share when the sample gets too large."""
        flat = rows.reshape(-1)
        # For a large tensor the share is lowered first, so that it is never copied as a whole.
        while flat.numel() * self._rate > self.sample_size:
            self._halve()
        if self._rate == 1:
            drawn = flat
        else:
            number = max(1, round(flat.numel() * self._rate))
            drawn = flat[self._random_indices(flat.numel(), number).to(flat.device)]
        self._sample = torch.cat((self._sample, drawn.float().cpu()))
        while len(self._sample) > self.sample_size:
            self._halve()
        if self._num_calls % self._row_stride == 0:
            self._rows += rows[self._random_indices(len(rows), 4).to(rows.device)].float().cpu()
            if len(self._rows) > _MAX_ROWS:
                # Drop every second row, so that the rows stay spread over all calls.
                self._rows = [row.clone() for row in self._rows[::2]]
                self._row_stride *= 2

    def _halve(self) -> None:
        self._rate /= 2
        order = torch.randperm(len(self._sample), generator=self._generator)
        self._sample = self._sample[order[: len(self._sample) // 2]]
