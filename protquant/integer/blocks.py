"""The blocks of a folding trunk on integers; on an NVIDIA GPU recorded once, and replayed at every further pass."""

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from protquant.integer.block import IntegerFoldingBlock
from protquant.integer.pair_stream import PairStream, SimulatedCodec
from protquant.models.trunk import FoldingBlocks

__all__ = ["IntegerBlocks", "Recording", "may_record"]

log = logging.getLogger(__name__)

_DEVICES = ("cuda",)
_MOST_PAIRS = 640**2
"""Of residues that are recorded: with more, kernels run for longer than it takes to launch them one by one."""


class Recording:
    """A run of blocks as a CUDA graph: launched as one, where a block is about fifty launches.

    Parameters
    ----------
    run : callable
        Given the single and the pair, both of which it may change in place; waits for nothing on the device.
    single : Tensor, shape=(b, l, s)
    pair : Tensor, shape=(b, l, l, c)
        Examples, on the GPU. The recording keeps copies of them, and the memory of all that is between.
    """

    def __init__(self, run: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], single: Tensor, pair: Tensor) -> None:
        with torch.inference_mode(False):  # or nobody outside of that mode could write to them
            self._inputs = single.clone(), pair.clone()
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(pair.device)
        with torch.cuda.graph(self._graph):
            self._outputs = run(*self._inputs)

    def replay(self, single: Tensor, pair: Tensor) -> tuple[Tensor, Tensor]:
        """What `run` gives for other values of the same shapes, in memory of its own."""
        for held, given in zip(self._inputs, (single, pair), strict=True):
            held.copy_(given)
        self._graph.replay()
        return self._outputs[0].clone(), self._outputs[1].clone()


class IntegerBlocks(FoldingBlocks):
    """Twin of `FoldingBlocks`.

    A pass over proteins of the same shape as the one before is recorded, and further ones are replays: so it is with
    every protein whose structure is recycled. Only where all is on integers, no residue is padding, and no gradient is
    asked for.

    Attributes
    ----------
    records : bool
        Whether to record at all.
    """

    def __init__(self, blocks: Iterable[nn.Module], calls: Counter[tuple[str, str]] | None = None) -> None:
        super().__init__(blocks)
        self.records = True
        self._calls = Counter() if calls is None else calls  # of the backend: what is replayed counts as well
        self._seen: Hashable = None
        self._recording: Recording | None = None
        self._recorded_calls = Counter[tuple[str, str]]()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_seen": None, "_recording": None}  # a graph is neither copied nor stored

    @property
    def is_recorded(self) -> bool:
        """Whether the next pass over what the last one was given is a replay."""
        return self._recording is not None

    def again(self, *, records: bool) -> "IntegerBlocks":
        """Other passes through the same blocks."""
        other = IntegerBlocks(self, self._calls).eval()
        other.records = records
        return other

    def forward(
        self,
        single: Float[Tensor, "b l s"],
        pair: Float[Tensor, "b i j c"],
        mask: Bool[Tensor, "b l"] | None,
        chunk_size: int | None = None,
    ) -> tuple[Float[Tensor, "b l s"], Float[Tensor, "b i j c"]]:
        # Once for all blocks: to ask waits for the device.
        mask = None if mask is None or bool(mask.all()) else mask
        what = None
        if self._can_record(single, pair, mask):
            what = chunk_size, *((x.shape, x.dtype, x.device) for x in (single, pair))
        if what is None or what != self._seen:
            # The first time kernels are compiled, and constants are made. Nothing is kept of what went before.
            self._seen, self._recording = what, None
            return self._one_by_one(single, pair, mask, chunk_size)
        if self._recording is None and not self._record(single, pair, chunk_size):
            return self._one_by_one(single, pair, None, chunk_size)
        assert self._recording is not None
        self._calls.update(self._recorded_calls)
        return self._recording.replay(single, pair)

    def _record(self, single: Tensor, pair: Tensor, chunk_size: int | None) -> bool:
        """Make a recording, and tell whether that went well; it does not count as a pass."""
        before = self._calls.copy()
        try:
            self._recording = Recording(lambda x, z: self._one_by_one(x, z, None, chunk_size), single, pair)
        except torch.OutOfMemoryError:
            self._seen = None
            log.warning("blocks are run one by one: there is no memory for a recording of %d residues", pair.shape[1])
        except RuntimeError as error:
            self.records = False
            log.warning("blocks are run one by one, because they cannot be recorded on this GPU: %s", error)
        self._recorded_calls = self._calls - before
        self._calls.clear()
        self._calls.update(before)
        return self._recording is not None

    def _one_by_one(
        self, single: Tensor, pair: Tensor, mask: Tensor | None, chunk_size: int | None
    ) -> tuple[Tensor, Tensor]:
        """Blocks hand the pair to each other as it is kept."""
        kept = PairStream(pair)
        for block in self:
            single, kept = block(single, kept, mask, chunk_size)
        return single, kept.floats()

    def _can_record(self, single: Tensor, pair: Tensor, mask: Tensor | None) -> bool:
        if not self.records or torch.is_grad_enabled() or mask is not None or single.dtype != pair.dtype:
            return False
        return may_record(pair) and all(map(_is_recordable, self))


def may_record(pair: Float[Tensor, "b i j c"]) -> bool:
    """Whether blocks are recorded on such a device, with so many residues."""
    return pair.device.type in _DEVICES and pair.shape[:3].numel() <= _MOST_PAIRS


def _is_recordable(block: nn.Module) -> bool:
    """Whether nothing in the block waits for the device, as parts that are simulated do."""
    if not isinstance(block, IntegerFoldingBlock) or block.left:
        return False
    return not any(isinstance(codec, SimulatedCodec) for codec in block.codecs.values())
