"""Cache of calibration statistics, which depend only on the model, the sequences, and how the model is run.

They do not depend on the recipe. So the key is a hash of those three, and recipes for the same model share an entry. If
steps have changed the model before calibration, the changed weights are hashed: equal scales give equal keys, whatever
the formats.

The statistics that steps gather (`Evidence`: second moments of every layer's input) are not cached: they take one
matrix per layer, gigabytes for a large encoder. An entry here takes a few hundred kilobytes per site.
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
# Attributes that do not affect the outputs of a model.
_LABELS = ("training", "source", "fingerprint", "lineage")


class StatisticsCache(Protocol):
    """A store of statistics by key."""

    def get(self, key: str) -> dict[str, Statistics] | None:
        """Return the stored statistics; None if there are none, or they cannot be used."""

    def put(self, key: str, statistics: Mapping[str, Statistics]) -> None:
        """Store statistics. A cache that cannot store them warns, and does not fail."""


class MemoryCache:
    """Cache in memory that drops the least recently used entries.

    Parameters
    ----------
    limit : int
        Maximal bytes of all entries.
    """

    def __init__(self, limit: int = 2**29) -> None:
        self.limit = limit
        self._entries: OrderedDict[str, dict[str, Statistics]] = OrderedDict()

    def get(self, key: str) -> dict[str, Statistics] | None:
        """Return the stored statistics; None if there are none."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return dict(self._entries[key])

    def put(self, key: str, statistics: Mapping[str, Statistics]) -> None:
        """Store statistics, and drop the least recently used ones beyond the limit."""
        self._entries[key] = dict(statistics)
        self._entries.move_to_end(key)
        while sum(map(statistics_bytes, self._entries.values())) > self.limit:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Drop all entries."""
        self._entries.clear()


def statistics_bytes(statistics: Mapping[str, Statistics]) -> int:
    """Return the bytes of the tensors of `statistics`; shared statistics are counted once."""
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
    """Return the statistics from `cache`, or those of `calibrate`.

    Parameters
    ----------
    model, sequences, forward, progress
        See `calibrate`.
    cache : StatisticsCache or None
        None always calibrates.
    steps : sequence of mapping
        Configs of the steps that have changed the model; they are part of the key, with the changed weights.
    sites : collection of str, optional
        See `calibrate`; with `sites` the cache is not used.
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
    """Return the SHA-256 of everything that the statistics depend on: 64 hexadecimal digits.

    None if sequences are neither text nor tensors, or `forward` has no name of its own, as a lambda. Arguments that
    `functools.partial` binds to `forward` are part of the key.
    """
    try:
        settings = {
            "forward": _name(forward),
            "depth": depth,
            "sample_size": sample_size,
            "steps": list(steps),
            # The last digits of sums of floats depend on these.
            "device": str(next((parameter.device.type for parameter in model.parameters()), "cpu")),
            "versions": [torch.__version__, version("protquant")],
        }
        return inputs_hash(settings, model, sequences)
    except TypeError:
        return None


def inputs_hash(settings: Mapping[str, Any], model: nn.Module, sequences: Iterable[Any]) -> str:
    """Return the SHA-256 of the inputs of a calibration or training: settings, model and sequences.

    Raises
    ------
    TypeError
        If a sequence is neither text nor a tensor, or a setting has no stable text form.
    """
    contents = [_content(sequence) for sequence in sequences]
    return fingerprint({"settings": settings, "model": model_hash(model), "sequences": contents})


def model_hash(model: nn.Module) -> str:
    """Return the SHA-256 of a model's modules, their settings, and the current values of all tensors."""
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
    raise TypeError(f"a {type(sequence).__name__} has no content that can be hashed")


def _name(forward: Callable[..., object]) -> object:
    if isinstance(forward, partial):
        return {"call": _name(forward.func), "arguments": list(forward.args), "settings": forward.keywords}
    name = getattr(forward, "__qualname__", "<")
    if "<" in name:
        raise TypeError("a lambda or local function has no name that identifies it")
    return f"{forward.__module__}.{name}"
