"""The blocks of a folding trunk on integers; an NVIDIA GPU records the second pass, and replays it in later ones."""

from collections.abc import Hashable, Iterable
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from protquant.integer.pair_stream import PairStream
from protquant.integer.recording import Recorder, can_record
from protquant.models.trunk import FoldingBlocks
from protquant.quant.memory import release_freed

__all__ = ["IntegerBlocks", "may_record"]

_LARGE = 2**23
"""Number of elements of a pair above which the time to return freed memory to the system is negligible."""
_MOST_PAIRS = 640**2
"""Largest number of pairs to record: with more, kernels take longer than their launches."""


class IntegerBlocks(FoldingBlocks):
    """Twin of `FoldingBlocks`, made of `IntegerFoldingBlock`.

    The second pass over proteins of one shape is recorded, and later passes replay it, as when a structure is recycled.
    Passes are recorded only if all parts run on integers, no residue is padding, and no gradient is needed.

    Attributes
    ----------
    recorder : Recorder
        Holds the recording of the last pass.
    """

    def __init__(self, blocks: Iterable[nn.Module], recorder: Recorder | None = None) -> None:
        super().__init__(blocks)
        self.recorder = recorder or Recorder()

    def with_recorder(self, *, records: bool) -> "IntegerBlocks":
        """Return a list of the same blocks with a recorder of its own."""
        return IntegerBlocks(self, Recorder(self.recorder.calls, records=records)).eval()

    def forward(
        self,
        single: Float[Tensor, "b l s"],
        pair: Float[Tensor, "b i j c"],
        mask: Bool[Tensor, "b l"] | None,
        chunk_size: int | None = None,
    ) -> tuple[Float[Tensor, "b l s"], Float[Tensor, "b i j c"]]:
        # Computed once for all blocks, because it waits for the device.
        mask = None if mask is None or bool(mask.all()) else mask
        what: Hashable = None
        if self._can_record(single, pair, mask):
            what = chunk_size, *((x.shape, x.dtype, x.device) for x in (single, pair))
        # The blocks, not `self`: a recorder that references the module would form a reference cycle.
        run = partial(_one_by_one, tuple(self), mask, chunk_size)
        single, pair = self.recorder.run(what, lambda: run, single, pair)
        return single, pair

    def _can_record(self, single: Tensor, pair: Tensor, mask: Tensor | None) -> bool:
        if torch.is_grad_enabled() or mask is not None or single.dtype != pair.dtype:
            return False
        return may_record(pair) and all(block.is_recordable for block in self)


def _one_by_one(
    blocks: Iterable[nn.Module], mask: Tensor | None, chunk_size: int | None, single: Tensor, pair: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the blocks in order; they pass on the pair in its stored format."""
    stream = PairStream(pair)
    for block in blocks:
        single, stream = block(single, stream, mask, chunk_size)
        if pair.device.type == "cpu" and pair.numel() >= _LARGE:
            release_freed()  # Return freed memory, as in the language model: the next block would not reuse it.
    return single, stream.floats()


def may_record(pair: Float[Tensor, "b i j c"]) -> bool:
    """Return whether blocks are recorded on a device, for a number of residues."""
    return can_record(pair.device) and pair.shape[:3].numel() <= _MOST_PAIRS
