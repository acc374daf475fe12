"""A padded batch without its padding: tokens of all sequences in the rows of one matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["PackedSequences", "SequenceTile"]


@dataclass(frozen=True)
class SequenceTile:
    """Whole sequences that lie next to each other among the packed rows.

    Attributes
    ----------
    rows : slice
        Of the packed matrix.
    sequences : tuple of slice
        Where each sequence lies in the tile.
    """

    rows: slice
    sequences: tuple[slice, ...]


class PackedSequences:
    """Where the tokens of a padded batch lie when they are packed: sequence by sequence, in the order of the batch.

    Parameters
    ----------
    valid : Tensor, shape=(b, l)
        False for padding, which may be anywhere. A row of nothing but padding is no sequence.

    Attributes
    ----------
    columns : list of Tensor, shape=(n,), int64
        Of the batch, that the tokens of each sequence come from.
    positions : Tensor, shape=(t,), int64
        The same of all tokens: what rotary positions are made of.
    """

    def __init__(self, valid: Bool[Tensor, "b l"]) -> None:
        self.shape = valid.shape
        columns = [row.nonzero().squeeze(1) for row in valid]
        self.batch_rows = [row for row, some in enumerate(columns) if len(some)]
        self.columns: list[Int[Tensor, " n"]] = [columns[row] for row in self.batch_rows]
        none = torch.empty(0, dtype=torch.int64, device=valid.device)
        self.positions: Int[Tensor, " t"] = torch.cat([none, *self.columns])

    def __len__(self) -> int:
        return len(self.positions)

    def tiles(self, tokens: int | None) -> list[SequenceTile]:
        """Tiles of as many sequences as have no more than `tokens` together, but of one at least; None: one tile."""
        tiles: list[SequenceTile] = []
        sequences: list[slice] = []
        start = 0
        for length in map(len, self.columns):
            total = sequences[-1].stop if sequences else 0
            if sequences and tokens is not None and total + length > tokens:
                tiles.append(SequenceTile(slice(start, start + total), tuple(sequences)))
                start, total, sequences = start + total, 0, []
            sequences.append(slice(total, total + length))
        if sequences:
            tiles.append(SequenceTile(slice(start, len(self)), tuple(sequences)))
        return tiles

    def unpack(self, rows: Float[Tensor, "t c"], batch: Float[Tensor, "b l c"] | None = None) -> Float[Tensor, "b l c"]:
        """Rows in the places of their tokens in a batch: in `batch`, or in one that is zero where there is padding."""
        if batch is None:
            batch = rows.new_zeros(*self.shape, rows.shape[1])
        for row, columns, some in zip(self.batch_rows, self.columns, self._split(rows), strict=True):
            batch[row, _as_slice(columns)] = some
        return batch

    def _split(self, rows: Float[Tensor, "t c"]) -> Sequence[Float[Tensor, "n c"]]:
        return rows.split([len(columns) for columns in self.columns]) if self.columns else []

    def unpack_maps(
        self, maps: Sequence[Float[Tensor, "h n n"]], batch: Float[Tensor, "b h l l"]
    ) -> Float[Tensor, "b h l l"]:
        """The same of attention between the tokens of each sequence."""
        for row, columns, some in zip(self.batch_rows, self.columns, maps, strict=True):
            item = batch[row]
            item[:, columns[:, None], columns] = some.to(batch.dtype)
        return batch


def _as_slice(columns: Int[Tensor, " n"]) -> slice | Tensor:
    """Columns that lie next to each other as a slice: copies of rows are faster."""
    first, last = int(columns[0]), int(columns[-1]) + 1
    return slice(first, last) if last - first == len(columns) else columns
