"""The blocks of a folding trunk on integers; on an NVIDIA GPU recorded once, and replayed at every further pass."""

from collections.abc import Hashable, Iterable
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from protquant.integer.block import IntegerFoldingBlock
from protquant.integer.pair_stream import PairStream, SimulatedCodec
from protquant.integer.recording import Recorder, can_record
from protquant.models.trunk import FoldingBlocks
from protquant.quant.memory import release_freed

__all__ = ["IntegerBlocks", "may_record"]

_LARGE = 2**23
"""Elements of a pair from which on it takes next to no time to give back what blocks free."""
_MOST_PAIRS = 640**2
"""Of residues that are recorded: with more, kernels run for longer than it takes to launch them one by one."""


class IntegerBlocks(FoldingBlocks):
    """Twin of `FoldingBlocks`.

    A pass over proteins of the same shape as the one before is recorded, and further ones are replays: so it is with
    every protein whose structure is recycled. Only where all is on integers, no residue is padding, and no gradient is
    asked for.

    Attributes
    ----------
    recorder : Recorder
        Of passes.
    """

    def __init__(self, blocks: Iterable[nn.Module], recorder: Recorder | None = None) -> None:
        super().__init__(blocks)
        self.recorder = recorder or Recorder()

    def again(self, *, records: bool) -> "IntegerBlocks":
        """Other passes through the same blocks."""
        return IntegerBlocks(self, Recorder(self.recorder.calls, records=records)).eval()

    def forward(
        self,
        single: Float[Tensor, "b l s"],
        pair: Float[Tensor, "b i j c"],
        mask: Bool[Tensor, "b l"] | None,
        chunk_size: int | None = None,
    ) -> tuple[Float[Tensor, "b l s"], Float[Tensor, "b i j c"]]:
        # Once for all blocks: to ask waits for the device.
        mask = None if mask is None or bool(mask.all()) else mask
        what: Hashable = None
        if self._can_record(single, pair, mask):
            what = chunk_size, *((x.shape, x.dtype, x.device) for x in (single, pair))
        # Not the module itself, which would hold what holds it.
        run = partial(_one_by_one, tuple(self), mask, chunk_size)
        single, pair = self.recorder.run(what, lambda: run, single, pair)
        return single, pair

    def _can_record(self, single: Tensor, pair: Tensor, mask: Tensor | None) -> bool:
        if torch.is_grad_enabled() or mask is not None or single.dtype != pair.dtype:
            return False
        return may_record(pair) and all(map(_is_recordable, self))


def _one_by_one(
    blocks: Iterable[nn.Module], mask: Tensor | None, chunk_size: int | None, single: Tensor, pair: Tensor
) -> tuple[Tensor, Tensor]:
    """Blocks hand the pair to each other as it is kept."""
    kept = PairStream(pair)
    for block in blocks:
        single, kept = block(single, kept, mask, chunk_size)
        if pair.device.type == "cpu" and pair.numel() >= _LARGE:
            release_freed()  # As in the language model: what a block frees, the next does not find again.
    return single, kept.floats()


def may_record(pair: Float[Tensor, "b i j c"]) -> bool:
    """Whether blocks are recorded on such a device, with so many residues."""
    return can_record(pair.device) and pair.shape[:3].numel() <= _MOST_PAIRS


def _is_recordable(block: nn.Module) -> bool:
    """Whether nothing in the block waits for the device, as parts that are simulated do."""
    if not isinstance(block, IntegerFoldingBlock) or block.left:
        return False
    return not any(isinstance(codec, SimulatedCodec) for codec in block.codecs.values())
