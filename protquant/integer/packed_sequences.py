"""A padded batch without its padding: tokens of all sequences in the rows of one matrix."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Integer, Shaped
from torch import Tensor

__all__ = ["PackedSequences", "PaddedSequences", "SequenceTile"]


class PaddedSequences(NamedTuple):
    """Some sequences of a tile, padded to the longest of them: `b` of `l` tokens.

    Attributes
    ----------
    rows : Tensor, shape=(b * l,), int64
        Of the tile, in the order of the padded batch; padding is any of them.
    valid : Tensor, shape=(b, l), bool
        False for padding.
    tokens, places : Tensor, shape=(n,), int64
        Rows of the tile that are there, and where each lies in the padded batch.
    """

    length: int
    rows: Integer[Tensor, " bl"]
    valid: Bool[Tensor, "b l"]
    tokens: Integer[Tensor, " n"]
    places: Integer[Tensor, " n"]


@dataclass(frozen=True)
class SequenceTile:
    """Whole sequences that lie next to each other among the packed rows.

    Attributes
    ----------
    rows : slice
        Of the packed matrix.
    sequences : tuple of slice
        Where each sequence lies in the tile.
    device : torch.device
        Where the rows are.
    """

    rows: slice
    sequences: tuple[slice, ...]
    device: torch.device

    @property
    def length(self) -> int | None:
        """Of all sequences; None where they differ."""
        lengths = {some.stop - some.start for some in self.sequences}
        return lengths.pop() if len(lengths) == 1 else None

    @cached_property
    def padded(self) -> tuple[PaddedSequences, ...]:
        """All sequences, in batches in which none is less than half as long as another."""
        return tuple(self._pad(some) for some in _of_similar_length(self.sequences))

    def prepare(self) -> None:
        """Bring to the device what attention will read there, which waits for it."""
        if self.length is None:
            _ = self.padded

    def _pad(self, sequences: Sequence[slice]) -> PaddedSequences:
        starts = torch.tensor([some.start for some in sequences])
        lengths = torch.tensor([some.stop - some.start for some in sequences])
        length = int(lengths.max())
        rows = starts[:, None] + torch.arange(length).minimum(lengths[:, None] - 1)
        valid = torch.arange(length) < lengths[:, None]
        places = valid.flatten().nonzero().squeeze(1)
        tokens = rows.flatten()[places]
        return PaddedSequences(length, *(x.to(self.device) for x in (rows.flatten(), valid, tokens, places)))


def _of_similar_length(sequences: Sequence[slice]) -> Iterator[list[slice]]:
    """In groups in which the shortest is at least half as long as the longest; the longest come first."""
    group: list[slice] = []
    for some in sorted(sequences, key=lambda each: each.start - each.stop):
        if group and 2 * (some.stop - some.start) < group[0].stop - group[0].start:
            yield group
            group = []
        group.append(some)
    if group:
        yield group


class PackedSequences:
    """Where the tokens of a padded batch lie when they are packed: sequence by sequence, in the order of the batch.

    Parameters
    ----------
    valid : Tensor, shape=(b, l)
        False for padding, which may be anywhere. A row of nothing but padding is no sequence.

    Attributes
    ----------
    key : hashable
        The same for another batch of the same device whose tokens lie in the same places.
    lengths : list of int
        Of the sequences.
    batch_rows, positions : Tensor, shape=(t,), int64
        Row and column of the batch that each token comes from; rotary positions are made of columns.
    """

    def __init__(self, valid: Bool[Tensor, "b l"]) -> None:
        self.shape = valid.shape
        # On the CPU, so that a GPU is not waited for with every sequence.
        on_cpu = valid.cpu()
        self.key: Hashable = (valid.device, valid.shape, on_cpu.numpy().tobytes())
        counts = on_cpu.sum(1).tolist()
        self.lengths: list[int] = [count for count in counts if count]
        self._rows = [row for row, count in enumerate(counts) if count]
        rows, columns = on_cpu.nonzero().unbind(1)
        self.batch_rows: Integer[Tensor, " t"] = rows.to(valid.device)
        self.positions: Integer[Tensor, " t"] = columns.to(valid.device)

    def __len__(self) -> int:
        return len(self.positions)

    def tiles(self, tokens: int | None) -> list[SequenceTile]:
        """Tiles of as many sequences as have no more than `tokens` together, but of one at least; None: one tile."""
        tiles: list[SequenceTile] = []
        sequences: list[slice] = []
        start = 0
        for length in self.lengths:
            total = sequences[-1].stop if sequences else 0
            if sequences and tokens is not None and total + length > tokens:
                tiles.append(self._tile(start, sequences))
                start, total, sequences = start + total, 0, []
            sequences.append(slice(total, total + length))
        if sequences:
            tiles.append(self._tile(start, sequences))
        return tiles

    def _tile(self, start: int, sequences: Sequence[slice]) -> SequenceTile:
        return SequenceTile(slice(start, start + sequences[-1].stop), tuple(sequences), self.positions.device)

    def pack(self, batch: Shaped[Tensor, "b l ..."]) -> Shaped[Tensor, "t ..."]:
        """The tokens of a batch without its padding."""
        return batch[self.batch_rows, self.positions]

    def unpack(self, rows: Float[Tensor, "t c"], batch: Float[Tensor, "b l c"] | None = None) -> Float[Tensor, "b l c"]:
        """Rows in the places of their tokens in a batch: in `batch`, or in one that is zero where there is padding."""
        if batch is None:
            batch = rows.new_zeros(*self.shape, rows.shape[1])
        batch[self.batch_rows, self.positions] = rows
        return batch

    def unpack_maps(
        self, maps: Sequence[Float[Tensor, "h n n"]], batch: Float[Tensor, "b h l l"]
    ) -> Float[Tensor, "b h l l"]:
        """The same of attention between the tokens of each sequence."""
        for row, columns, some in zip(self._rows, self.positions.split(self.lengths), maps, strict=True):
            item = batch[row]
            item[:, columns[:, None], columns] = some.to(batch.dtype)
        return batch
