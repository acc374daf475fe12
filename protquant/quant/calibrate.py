"""Calibration: run a float model on sequences and gather statistics of its activations."""

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
    """Return statistics of the activations of `model`.

    Parameters
    ----------
    sequences : iterable
        Inputs of `forward`, one protein each: statistics would count padding as values.
    forward : callable
        Runs the model on one sequence; its result is not used. By default it calls the model with the sequence.
    sites : collection of str, optional
        Names of the activation sites to observe; by default all.
    counted : collection of str
        Names of activation sites whose values are only counted (`Statistics.counted`), at no cost.
    depth : int
        Number of extreme values to store per sequence: at least the `top_k` of all recipes that will use the
        statistics.
    sample_size : int
        Maximal number of values sampled per site.
    progress : bool
        Whether to draw a progress bar on standard error.

    Returns
    -------
    dict
        Statistics by name of site, in the order of the model. Sites that were not reached are missing.

    Raises
    ------
    ProtquantError
        If there are no sequences, a name is not an activation site of the model, or a value is not finite.
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
    handles += [
        watch_input(model.get_submodule(known[name].module), counter.count) for name, counter in counters.items()
    ]
    training, count = model.training, 0
    model.eval()
    try:
        with torch.no_grad():  # Not inference mode: its tensors have no version counter.
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
    return statistics | {name: counter.statistics() for name, counter in counters.items() if counter.total}


def count_activations(
    skeleton: _Model, sequence: _Sequence, forward: Callable[[_Model, _Sequence], object] = _call
) -> dict[str, Statistics]:
    """Count the values of all activations on one sequence from shapes alone, without weights.

    Parameters
    ----------
    skeleton : nn.Module
        Model on the meta device; its buffers are moved there as well.
    sequence, forward
        See `calibrate`.

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
    """Let sites with equal statistics share one object, so that it is stored once and each format is fitted once."""
    first: dict[tuple[object, ...], Statistics] = {}
    shared = {}
    for name, seen in statistics.items():
        key = (seen.count, seen.moments, len(seen.sample))
        known = first.setdefault(key, seen)
        shared[name] = known if torch.equal(known.sample, seen.sample) else seen
    return shared


def watch_input(module: nn.Module, see: Callable[[Tensor], object]) -> RemovableHandle:
    """Call `see` with the tensor at the input site of `module`, at every call, until the handle is removed."""

    def before(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        see(inputs[0])

    def after(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        see(output)

    if isinstance(module, TransformedLinear):
        return module.transforms.register_forward_hook(after)
    return module.register_forward_pre_hook(before)


class _Counter:
    """Counts values and vectors."""

    def __init__(self) -> None:
        self.total = self._vectors = 0

    def count(self, x: Tensor) -> None:
        self.total += x.numel()
        self._vectors += x.shape[:-1].numel()

    def statistics(self) -> Statistics:
        return Statistics.counted(self.total, round(self.total / self._vectors))


class _Watcher:
    """Passes the inputs of modules to observers; computes one digest when consecutive modules read the same tensor."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self._last: tuple[Tensor, int, Digest] | None = None

    def watch(self, module: nn.Module, observer: Observer) -> RemovableHandle:
        return watch_input(module, lambda x: observer.update(x, self._digest(x)))

    def _digest(self, x: Tensor) -> Digest | None:
        if x.numel() == 0:
            return None
        version = x._version  # noqa: SLF001 (counts changes in place; documented, but without a public name)
        if self._last is None or self._last[0] is not x or self._last[1] != version:
            self._last = (x, version, Digest.of(x, self.depth))
        return self._last[2]
