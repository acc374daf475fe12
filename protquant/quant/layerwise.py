"""One pass over a model, layer by layer: what linear layers read is gathered for one block at a time.

So the second moments of a block are in memory with the model, and those of all others are not.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from protquant.errors import ProtquantError
from protquant.quant.calibrate import watch_input
from protquant.quant.evidence import Evidence, Gatherer
from protquant.reporting.steps import Steps
from protquant.topology import find_chains

__all__ = ["Call", "Stage", "gathering", "record_calls", "run_block", "sweep"]

Call = tuple[Any, ...]
"""What a block is called with."""


@dataclass(frozen=True)
class Stage:
    """A block, or all that lies in none.

    Attributes
    ----------
    path : str or None
        Of the block; None for what lies in no block.
    evidence : dict
        By path of linear layer. A layer that nothing passed through is missing.
    """

    path: str | None
    evidence: dict[str, Evidence]


def sweep(
    model: nn.Module,
    sequences: Sequence[Any],
    forward: Callable[[nn.Module, Any], object],
    groups: Collection[Sequence[str]],
    *,
    quantized: bool = False,
    progress: bool = False,
    label: str = "layers",
) -> Iterator[Stage]:
    """Go through `model` in the order of its blocks, what lies outside of them first.

    Whoever takes a stage may change the layers in it before taking the next; those outside of blocks count as unchanged
    for what the blocks are given.

    Parameters
    ----------
    sequences, forward
        As for `calibrate`.
    groups : collection of sequence of str
        Paths of linear layers that read one tensor.
    quantized : bool
        Whether the blocks after a block are fed with what it gives after it was changed, or before.
    label : str
        Of the progress bar.

    Raises
    ------
    ProtquantError
        Where there are no sequences.
    """
    if not sequences:
        raise ProtquantError("there are no sequences to go through the model with")
    chains = [chain for chain in find_chains(model) if any(_inside(group, chain) for group in groups)]
    blocks = [block for chain in chains for block in chain]
    outside = [group for group in groups if not _inside(group, blocks)]
    training = model.training
    model.eval()
    bar = Steps(total=len(blocks) + 1, desc=label, unit="block", disable=not progress, leave=False)
    try:
        with gathering(model, outside) as evidence, record_calls(model, [chain[0] for chain in chains]) as recorded:
            for sequence in sequences:
                for calls in recorded.values():
                    calls.append([])
                with torch.no_grad():
                    forward(model, sequence)
        yield Stage(None, evidence())
        bar.update()
        for chain in chains:
            calls = recorded.pop(chain[0])
            for path in chain:
                inside = [group for group in groups if _inside(group, [path])]
                with gathering(model, inside) as evidence:
                    following = run_block(model, path, calls)
                yield Stage(path, evidence())
                # What was changed may have been replaced, the block itself included.
                calls = run_block(model, path, calls) if quantized else following
                bar.update()
    finally:
        bar.close()
        model.train(training)


def _inside(group: Sequence[str], blocks: Collection[str]) -> bool:
    return any(group[0].startswith(f"{block}.") for block in blocks)


def run_block(model: nn.Module, path: str, calls: list[list[Call]]) -> list[list[Call]]:
    """Run the block at `path`; return what the one after it is called with, sequence by sequence."""
    block: Any = model.get_submodule(path)
    with torch.no_grad():
        return [[block.next_inputs(inputs, block(*inputs)) for inputs in sequence] for sequence in calls]


@contextmanager
def record_calls(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, list[list[Call]]]]:
    """Record what the modules are called with, into the last list of each: append an empty one per sequence."""
    recorded: dict[str, list[list[Call]]] = {path: [] for path in paths}

    def recorder(path: str) -> Callable[[nn.Module, Call], None]:
        def record(_module: nn.Module, inputs: Call) -> None:
            recorded[path][-1].append(tuple(x.detach() if isinstance(x, Tensor) else x for x in inputs))

        return record

    handles = [model.get_submodule(path).register_forward_pre_hook(recorder(path)) for path in paths]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def gathering(model: nn.Module, groups: Collection[Sequence[str]]) -> Iterator[Callable[[], dict[str, Evidence]]]:
    """Gather what the first layer of each group reads; it is that of all.

    What is given tells what was gathered, once, by path of layer.
    """
    gatherers = {tuple(group): Gatherer() for group in groups}
    handles = [watch_input(model.get_submodule(group[0]), seen.update) for group, seen in gatherers.items()]

    def evidence() -> dict[str, Evidence]:
        # Taken out as they are asked for: second moments of a wide layer are not to be in memory twice.
        seen = {group: gatherers.pop(group).evidence() for group in tuple(gatherers)}
        return {path: each for group, each in seen.items() if each is not None for path in group}

    try:
        yield evidence
    finally:
        for handle in handles:
            handle.remove()
