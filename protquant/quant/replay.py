"""Run a model many times with small changes, without recomputing the blocks before the change."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from protquant.topology import find_chains

__all__ = ["Replay"]


class Replay:
    """Records the outputs of every block, and replays them up to the first changed module.

    Parameters
    ----------
    model : nn.Module
        A model whose blocks `protquant.topology.find_chains` finds. It is changed only while it runs.
    sequences : sequence
        Inputs of `forward`.
    forward : callable
        Runs the model on one sequence.
    limit : int
        Bytes of outputs to record. Sequences beyond this limit are computed from the start every time.
    """

    def __init__(
        self,
        model: nn.Module,
        sequences: Sequence[Any],
        forward: Callable[[nn.Module, Any], Any],
        limit: int = 2**31,
    ) -> None:
        self.model, self.sequences, self.forward = model, sequences, forward
        self._paths = [path for chain in find_chains(model) for path in chain]
        self._recorded: dict[int, dict[str, list[Any]]] = {}
        self._left = limit

    @torch.no_grad()
    def record(self, index: int) -> Any:
        """Run the unchanged model on one sequence, and record the outputs of its blocks."""
        recorded: dict[str, list[Any]] = {path: [] for path in self._paths}

        def recorder(path: str) -> Callable[[nn.Module, object, Any], None]:
            return lambda _module, _inputs, output: recorded[path].append(output)

        handles = [self.model.get_submodule(path).register_forward_hook(recorder(path)) for path in self._paths]
        try:
            output = self.forward(self.model, self.sequences[index])
        finally:
            for handle in handles:
                handle.remove()
        size = sum(_bytes(each) for outputs in recorded.values() for each in outputs)
        if size <= self._left:
            self._left -= size
            self._recorded[index] = recorded
        return output

    @torch.no_grad()
    def run(self, index: int, changed: Collection[str]) -> Any:
        """Run the model on one sequence after the modules at the paths `changed` were changed."""
        recorded = self._recorded.get(index)
        if recorded is None:
            return self.forward(self.model, self.sequences[index])
        with _replaying(self.model, recorded, changed):
            return self.forward(self.model, self.sequences[index])


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_bytes, value)) if isinstance(value, tuple | list) else 0


@contextmanager
def _replaying(model: nn.Module, recorded: dict[str, list[Any]], changed: Collection[str]) -> Iterator[None]:
    """Let blocks return their recorded outputs until a changed module is called for the first time.

    After that every block is computed. With recycling this includes the blocks before the change.
    """
    touched = False

    def touch(_module: nn.Module, _inputs: object) -> None:
        nonlocal touched
        touched = True

    def replayed(block: nn.Module, outputs: Sequence[Any]) -> Callable[..., Any]:
        compute, remaining = block.forward, iter(outputs)

        def forward(*inputs: Any, **settings: Any) -> Any:
            return compute(*inputs, **settings) if touched else next(remaining)

        return forward

    skipped = [
        model.get_submodule(path) for path in recorded if not any(f"{each}.".startswith(f"{path}.") for each in changed)
    ]
    handles = [model.get_submodule(path).register_forward_pre_hook(touch, prepend=True) for path in changed]
    try:
        for path, outputs in recorded.items():
            block = model.get_submodule(path)
            if block in skipped:
                # The attribute hides the method of the class until it is deleted.
                block.forward = replayed(block, outputs)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for block in skipped:
            vars(block).pop("forward", None)
