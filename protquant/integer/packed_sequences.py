"""A batch without padding: the tokens of all sequences are rows of one matrix."""

from collections.abc import Hashable, Sequence

from jaxtyping import Bool, Float, Integer, Shaped
from torch import Tensor

from protquant.kernels.sequence_tile import SequenceTile

__all__ = ["PackedSequences"]


class PackedSequences:
    """Places of a padded batch's tokens in a packed matrix: sequence by sequence, in the order of the batch.

    Parameters
    ----------
    valid : Tensor, shape=(b, l)
        False for padding, at any place. A row with only padding is not a sequence.

    Attributes
    ----------
    key : hashable
        Equal for batches on one device whose tokens lie in the same places.
    lengths : list of int
        Lengths of the sequences.
    batch_rows, positions : Tensor, shape=(t,), int64
        Row and column of each token in the batch; columns are the rotary positions.
    """

    def __init__(self, valid: Bool[Tensor, "b l"]) -> None:
        self.shape = valid.shape
        # Copy to the CPU, to wait once for a GPU and not for every sequence.
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
        """Return tiles of at most `tokens` tokens, with at least one sequence; None for one tile."""
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
        """Return the tokens of a batch without padding."""
        return batch[self.batch_rows, self.positions]

    def unpack(self, rows: Float[Tensor, "t c"], batch: Float[Tensor, "b l c"] | None = None) -> Float[Tensor, "b l c"]:
        """Write rows to the places of their tokens in `batch`, by default new and zero in the padding; return it."""
        if batch is None:
            batch = rows.new_zeros(*self.shape, rows.shape[1])
        batch[self.batch_rows, self.positions] = rows
        return batch

    def unpack_maps(
        self, maps: Sequence[Float[Tensor, "h _ _"]], batch: Float[Tensor, "b h l l"]
    ) -> Float[Tensor, "b h l l"]:
        """Write attention maps of each sequence to their places in `batch`; return it."""
        for row, columns, some in zip(self._rows, self.positions.split(self.lengths), maps, strict=True):
            item = batch[row]
            item[:, columns[:, None], columns] = some.to(batch.dtype)
        return batch
