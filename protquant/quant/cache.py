"""Statistics gathered once: they depend on the model as it is, the sequences, and how it is run, and on nothing else.

What they do not depend on is the recipe. So the cache is addressed by a hash of what they do depend on, and recipes on
the same model share them. Where steps have changed the model before calibration it is the changed weights that are
hashed: the same scales give the same key, whatever formats they were chosen for, and other scales give another one.

What steps gather beside (`Evidence`: second moments of every layer's input) is not kept. It takes a matrix per layer,
gigabytes for a large encoder, against some hundred kilobytes per site here.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from protquant.files import fingerprint, weights_fingerprint
from protquant.quant.calibrate import calibrate
from protquant.quant.observers import Statistics

__all__ = [
    "MemoryCache",
    "StatisticsCache",
    "calibrate_once",
    "calibration_key",
    "inputs_hash",
    "model_hash",
    "statistics_bytes",
]

_DEPTH, _SAMPLE_SIZE = 64, 2**15
# Where a model came from says nothing about what it computes.
_LABELS = ("training", "source", "fingerprint", "lineage")


class StatisticsCache(Protocol):
    """Anything that keeps statistics under a key."""

    def get(self, key: str) -> dict[str, Statistics] | None:
        """What was put there; None if nothing was, or it cannot be used."""

    def put(self, key: str, statistics: Mapping[str, Statistics]) -> None:
        """Keep statistics, or not: a cache that cannot keep them says so, and does not fail."""


class MemoryCache:
    """Keeps what was used last, for the life of the process.

    Parameters
    ----------
    limit : int
        Bytes of all that is kept.
    """

    def __init__(self, limit: int = 2**29) -> None:
        self.limit = limit
        self._entries: OrderedDict[str, dict[str, Statistics]] = OrderedDict()

    def get(self, key: str) -> dict[str, Statistics] | None:
        """What was put there."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return dict(self._entries[key])

    def put(self, key: str, statistics: Mapping[str, Statistics]) -> None:
        """Keep statistics, and forget those that were used longest ago where they are too many."""
        self._entries[key] = dict(statistics)
        self._entries.move_to_end(key)
        while sum(map(statistics_bytes, self._entries.values())) > self.limit:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()


def statistics_bytes(statistics: Mapping[str, Statistics]) -> int:
    """Bytes of the tensors of `statistics`, those that sites share counted once."""
    distinct = {id(seen): seen for seen in statistics.values()}.values()
    return sum(4 * (len(s.sample) + sum(t.numel() for t in (*s.lowest, *s.highest, *s.rows))) for s in distinct)


def calibrate_once(
    model: nn.Module,
    sequences: Sequence[Any],
    forward: Callable[[Any, Any], object],
    cache: StatisticsCache | None,
    *,
    steps: Sequence[Mapping[str, Any]] = (),
    sites: Collection[str] | None = None,
    progress: bool = False,
) -> dict[str, Statistics]:
    """`calibrate`, unless `cache` has what it would return.

    Parameters
    ----------
    model, sequences, forward, progress
        As for `calibrate`.
    cache : StatisticsCache or None
        None calibrates in any case.
    steps : sequence of mapping
        Configs of the steps that have changed the model; part of the key beside the weights that they have left.
    sites : collection of str, optional
        As for `calibrate`; statistics of some sites are not looked for in the cache, and not kept there.
    """

    def gather() -> dict[str, Statistics]:
        return calibrate(
            model, sequences, forward, sites=sites, depth=_DEPTH, sample_size=_SAMPLE_SIZE, progress=progress
        )

    key = None
    if cache is not None and sites is None:
        key = calibration_key(model, sequences, forward, depth=_DEPTH, sample_size=_SAMPLE_SIZE, steps=steps)
    if cache is None or key is None:
        return gather()
    statistics = cache.get(key)
    if statistics is None:
        statistics = gather()
        cache.put(key, statistics)
    return statistics


def calibration_key(
    model: nn.Module,
    sequences: Sequence[Any],
    forward: Callable[[Any, Any], object],
    *,
    depth: int,
    sample_size: int,
    steps: Sequence[Mapping[str, Any]] = (),
) -> str | None:
    """SHA-256 of all that the statistics depend on: 64 hexadecimal digits.

    None where that cannot be told: sequences that are neither text nor tensors, or a `forward` without a name of its
    own, such as a lambda. Settings of `forward` count where they are bound by `functools.partial`.
    """
    try:
        settings = {
            "forward": _name(forward),
            "depth": depth,
            "sample_size": sample_size,
            "steps": list(steps),
            # What a sum of many floats is in the last digit depends on these.
            "device": str(next((parameter.device.type for parameter in model.parameters()), "cpu")),
            "versions": [torch.__version__, version("protquant")],
        }
        return inputs_hash(settings, model, sequences)
    except TypeError:
        return None


def inputs_hash(settings: Mapping[str, Any], model: nn.Module, sequences: Iterable[Any]) -> str:
    """SHA-256 of what a calibration or a training starts from: settings, the model, and sequences.

    Raises
    ------
    TypeError
        If a sequence is neither text nor a tensor, or a setting has no stable text form.
    """
    contents = [_content(sequence) for sequence in sequences]
    return fingerprint({"settings": settings, "model": model_hash(model), "sequences": contents})


def model_hash(model: nn.Module) -> str:
    """SHA-256 of what a model computes with: its modules, their settings, and every tensor as it is now."""
    modules = []
    for path, module in model.named_modules(remove_duplicate=False):
        settings = {name: repr(value) for name, value in vars(module).items() if _is_setting(name, value)}
        modules.append([path, f"{type(module).__module__}.{type(module).__qualname__}", settings])
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    types = {name: str(tensor.dtype) for name, tensor in tensors.items()}
    return weights_fingerprint([modules, types], tensors)


def _is_setting(name: str, value: object) -> bool:
    if name.startswith("_") or name in _LABELS:
        return False
    if isinstance(value, tuple | list):
        return all(_is_setting(name, item) for item in value)
    return (
        value is None
        or isinstance(value, bool | int | float | str)
        or (dataclasses.is_dataclass(value) and not isinstance(value, type))
    )


def _content(sequence: object) -> object:
    if isinstance(sequence, Tensor):
        return {"tensor": weights_fingerprint(str(sequence.dtype), {"": sequence})}
    if isinstance(sequence, str):
        return sequence
    raise TypeError(f"a {type(sequence).__name__} has no content to tell it by")


def _name(forward: Callable[..., object]) -> object:
    if isinstance(forward, partial):
        return {"call": _name(forward.func), "arguments": list(forward.args), "settings": forward.keywords}
    name = getattr(forward, "__qualname__", "<")
    if "<" in name:
        raise TypeError("a function made on the spot has no name to tell it by")
    return f"{forward.__module__}.{name}"
