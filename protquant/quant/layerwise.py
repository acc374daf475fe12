"""One pass over a model, block by block, that gathers statistics of the inputs of linear layers.

Only the second moments of one block are in memory at a time.
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
"""The positional arguments of one call of a block."""


@dataclass(frozen=True)
class Stage:
    """Statistics of the layers of one block, or of all layers outside of blocks.

    Attributes
    ----------
    path : str or None
        Path of the block; None for the layers outside of blocks.
    evidence : dict
        Statistics by path of linear layer. Layers that were not called are missing.
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
    """Yield a `Stage` for the layers outside of blocks, then one for each block in the order of the model.

    The caller may change the layers of a stage before it takes the next one. Changes outside of blocks do not affect
    the inputs of the blocks.

    Parameters
    ----------
    sequences, forward
        See `calibrate`.
    groups : collection of sequence of str
        Each group has the paths of the linear layers that read one tensor.
    quantized : bool
        Whether a block gets the outputs of the changed blocks before it, or of the unchanged ones.
    label : str
        Label of the progress bar.

    Raises
    ------
    ProtquantError
        If there are no sequences.
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
                    next_calls = run_block(model, path, calls)
                yield Stage(path, evidence())
                # The caller may have replaced modules, the block itself included.
                calls = run_block(model, path, calls) if quantized else next_calls
                bar.update()
    finally:
        bar.close()
        model.train(training)


def _inside(group: Sequence[str], blocks: Collection[str]) -> bool:
    return any(group[0].startswith(f"{block}.") for block in blocks)


def run_block(model: nn.Module, path: str, calls: list[list[Call]]) -> list[list[Call]]:
    """Run the block at `path`; return the calls of the block after it, one list per sequence."""
    block: Any = model.get_submodule(path)
    with torch.no_grad():
        return [[block.next_inputs(inputs, block(*inputs)) for inputs in sequence] for sequence in calls]


@contextmanager
def record_calls(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, list[list[Call]]]]:
    """Record the calls of modules, by path, in the last list of each; the caller appends a list per sequence."""
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
    """Gather statistics of the input of each group of layers, at its first layer.

    The function that is yielded returns the statistics by path of layer; it can be called once.
    """
    gatherers = {tuple(group): Gatherer() for group in groups}
    handles = [watch_input(model.get_submodule(group[0]), seen.update) for group, seen in gatherers.items()]

    def evidence() -> dict[str, Evidence]:
        # Gatherers are removed one by one, so that second moments of a wide layer are not in memory twice.
        seen = {group: gatherers.pop(group).evidence() for group in tuple(gatherers)}
        return {path: each for group, each in seen.items() if each is not None for path in group}

    try:
        yield evidence
    finally:
        for handle in handles:
            handle.remove()
