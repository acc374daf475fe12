"""Calibration: run a float model on sequences and remember what passes through its sites."""

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from protquant.errors import ProtquantError
from protquant.quant.observers import Digest, Observer, Statistics
from protquant.quant.transforms import TransformedLinear
from protquant.reporting.steps import Steps
from protquant.sites import ACTIVATION_KINDS, find_sites

__all__ = ["calibrate", "count_activations", "watch_input"]

_Model = TypeVar("_Model", bound=nn.Module)
_Sequence = TypeVar("_Sequence")


def _call(model: nn.Module, sequence: object) -> object:
    return model(sequence)


def calibrate(
    model: _Model,
    sequences: Iterable[_Sequence],
    forward: Callable[[_Model, _Sequence], object] = _call,
    *,
    sites: Collection[str] | None = None,
    counted: Collection[str] = (),
    depth: int = 64,
    sample_size: int = 2**15,
    progress: bool = False,
) -> dict[str, Statistics]:
    """Statistics of the activations of `model`.

    Parameters
    ----------
    sequences : iterable
        What `forward` takes, one protein at a time: padding would be counted as values.
    forward : callable
        Runs the model on one of them; its result is not used. Calls the model with it by default.
    sites : collection of str, optional
        Names of the activations to observe; all by default.
    counted : collection of str
        Names of activations whose values are counted only (`Statistics.counted`), which costs nothing.
    depth : int
        How many extreme values to keep per sequence, at least the `top_k` of the recipes to come.
    sample_size : int
        Bound on the number of values sampled per site.
    progress : bool
        Whether to draw a progress bar on standard error.

    Returns
    -------
    dict
        By name of site, in the model's order. A site that nothing passed through is missing.

    Raises
    ------
    ProtquantError
        Where there are no sequences, a name is no activation of the model, or a value is not finite.
    """
    known = {site.name: site for site in find_sites(model) if site.kind in ACTIVATION_KINDS}
    for name in (*(sites or ()), *counted):
        if name not in known:
            raise ProtquantError(f"{name!r} is no activation site of the model, so it cannot be observed")
    observers = {
        name: Observer(name, depth, sample_size) for name in known if sites is None or name in frozenset(sites)
    }
    watcher = _Watcher(depth)
    handles = [watcher.watch(model.get_submodule(known[name].module), seen) for name, seen in observers.items()]
    counters = {name: _Counter() for name in known if name in frozenset(counted)}
    handles += [watch_input(model.get_submodule(known[name].module), each.count) for name, each in counters.items()]
    training, count = model.training, 0
    model.eval()
    try:
        with torch.no_grad():  # Not inference mode, whose tensors count no versions.
            for sequence in Steps(sequences, desc="calibrate", unit="sequence", disable=not progress):
                forward(model, sequence)
                count += 1
                for observer in observers.values():
                    observer.end_sequence()
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    if count == 0:
        raise ProtquantError("there are no sequences to calibrate on")
    statistics = _share({name: observer.statistics() for name, observer in observers.items() if observer.has_seen})
    return statistics | {name: each.statistics() for name, each in counters.items() if each.total}


def count_activations(
    skeleton: _Model, sequence: _Sequence, forward: Callable[[_Model, _Sequence], object] = _call
) -> dict[str, Statistics]:
    """Count the values of all activations on one sequence, without weights: from shapes alone.

    Parameters
    ----------
    skeleton : nn.Module
        The model on the meta device; its buffers are moved there too.
    sequence, forward
        As for `calibrate`.

    Returns
    -------
    dict
        `Statistics.counted` by name of site.
    """
    for module in skeleton.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            module._buffers[name] = buffer.to("meta")  # noqa: SLF001 (`to` keeps some buffers where they are)
    names = [site.name for site in find_sites(skeleton) if site.kind in ACTIVATION_KINDS]
    return calibrate(skeleton, [sequence], forward, sites=(), counted=names)


def _share(statistics: dict[str, Statistics]) -> dict[str, Statistics]:
    """One object where several sites saw the same, so that it is kept, and formats are fitted to it, once."""
    first: dict[tuple[object, ...], Statistics] = {}
    shared = {}
    for name, seen in statistics.items():
        key = (seen.count, seen.moments, len(seen.sample))
        known = first.setdefault(key, seen)
        shared[name] = known if torch.equal(known.sample, seen.sample) else seen
    return shared


def watch_input(module: nn.Module, see: Callable[[Tensor], object]) -> RemovableHandle:
    """Show `see` the tensor that the input site of `module` is, at every call, until the handle is removed."""

    def before(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        see(inputs[0])

    def behind(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        see(output)

    if isinstance(module, TransformedLinear):
        return module.transforms.register_forward_hook(behind)
    return module.register_forward_pre_hook(before)


class _Counter:
    """Counts the values of what it is shown."""

    def __init__(self) -> None:
        self.total = self._vectors = 0

    def count(self, x: Tensor) -> None:
        self.total += x.numel()
        self._vectors += x.shape[:-1].numel()

    def statistics(self) -> Statistics:
        return Statistics.counted(self.total, round(self.total / self._vectors))


class _Watcher:
    """Shows observers what their modules are called with, and digests a tensor once where several read it in turn."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self._last: tuple[Tensor, int, Digest] | None = None

    def watch(self, module: nn.Module, observer: Observer) -> RemovableHandle:
        return watch_input(module, lambda x: observer.update(x, self._digest(x)))

    def _digest(self, x: Tensor) -> Digest | None:
        if x.numel() == 0:
            return None
        version = x._version  # noqa: SLF001 (counts changes in place; documented, and has no public name)
        if self._last is None or self._last[0] is not x or self._last[1] != version:
            self._last = (x, version, Digest.of(x, self.depth))
        return self._last[2]
