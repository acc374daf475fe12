"""The places of whole sequences among the rows of a matrix of tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Integer
from torch import Tensor

__all__ = ["PaddedSequences", "SequenceTile"]


class PaddedSequences(NamedTuple):
    """Sequences of a tile, padded to the longest of them: `b` sequences of `l` tokens.

    Attributes
    ----------
    rows : Tensor, shape=(b * l,), int64
        Rows of the tile in the order of the padded batch; padding repeats a row of its sequence.
    valid : Tensor, shape=(b, l), bool
        False for padding.
    tokens, places : Tensor, shape=(n,), int64
        Rows of the tile that are not padding, and their places in the padded batch.
    """

    length: int
    rows: Integer[Tensor, " bl"]
    valid: Bool[Tensor, "b l"]
    tokens: Integer[Tensor, " n"]
    places: Integer[Tensor, " n"]


@dataclass(frozen=True)
class SequenceTile:
    """Whole sequences in adjacent rows of a matrix.

    Attributes
    ----------
    rows : slice
        Rows of the matrix.
    sequences : tuple of slice
        Rows of each sequence in the tile; together they cover the tile.
    device : torch.device
        Device of the rows.
    """

    rows: slice
    sequences: tuple[slice, ...]
    device: torch.device

    @property
    def tokens(self) -> int:
        """Number of rows."""
        return int(self.rows.stop - self.rows.start)

    @property
    def length(self) -> int | None:
        """Length of all sequences; None if lengths differ."""
        lengths = {_length(some) for some in self.sequences}
        return lengths.pop() if len(lengths) == 1 else None

    def runs(self, most: int | None = None) -> Iterator[tuple[slice, int]]:
        """Yield the rows of neighboring sequences of equal length, at most `most` of them, and that length."""
        first = 0
        while first < len(self.sequences):
            length, after = _length(self.sequences[first]), first + 1
            while after < len(self.sequences) and after - first != most and _length(self.sequences[after]) == length:
                after += 1
            yield slice(self.sequences[first].start, self.sequences[after - 1].stop), length
            first = after

    @cached_property
    def padded(self) -> tuple[PaddedSequences, ...]:
        """All sequences in padded batches; within a batch, none is less than half as long as another."""
        return tuple(self._pad(some) for some in _of_similar_length(self.sequences))

    def prepare(self) -> None:
        """Copy the tensors of attention to the device: copies wait for the device, which a recording may not do."""
        if self.length is None:
            _ = self.padded

    def _pad(self, sequences: Sequence[slice]) -> PaddedSequences:
        starts = torch.tensor([some.start for some in sequences])
        lengths = torch.tensor([_length(some) for some in sequences])
        length = int(lengths.max())
        rows = starts[:, None] + torch.arange(length).minimum(lengths[:, None] - 1)
        valid = torch.arange(length) < lengths[:, None]
        places = valid.flatten().nonzero().squeeze(1)
        tokens = rows.flatten()[places]
        return PaddedSequences(length, *(x.to(self.device) for x in (rows.flatten(), valid, tokens, places)))


def _of_similar_length(sequences: Sequence[slice]) -> Iterator[list[slice]]:
    """Yield groups whose shortest sequence is at least half as long as the longest; long sequences come first."""
    group: list[slice] = []
    for some in sorted(sequences, key=lambda each: each.start - each.stop):
        if group and 2 * _length(some) < _length(group[0]):
            yield group
            group = []
        group.append(some)
    if group:
        yield group


def _length(some: slice) -> int:
    return int(some.stop - some.start)
