"""Estimate the time of folding from a short measurement: small proteins run through one block of each kind."""

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from protquant.integer.blocks import IntegerBlocks
from protquant.models import ESMFold, ESMFoldConfig, encode_complexes
from protquant.preparing.quantize import quantize
from protquant.quant import Recipe
from protquant.quant.decoded_weights import decoded_weights
from protquant.residues import AMINO_ACIDS
from protquant.running.execution import Execution
from protquant.running.random_weights import randomize

__all__ = ["TimeEstimate", "measure_times"]

_WARM_UP, _LENGTHS, _ROUNDS = 32, (64, 160), 2
_Powers = tuple[int, int]
# Powers of the length in the time of each part. A layer of the language model: reading weights is constant, and the
# rest is linear, except for attention, which is small. A block of the trunk: linear layers of pairs are quadratic, and
# products over a third residue cubic. The structure module: residues are linear, pairs quadratic.
_LAYER, _BLOCK, _REST = (0, 1), (2, 3), (1, 2)


@dataclass(frozen=True)
class TimeEstimate:
    """Estimated times of the parts of a folding model, in seconds.

    Attributes
    ----------
    config : ESMFoldConfig
        Sizes of the model.
    layer, block, rest : tuple of float
        Factors of two powers of the length, whose sum is the time of: a layer of the language model; a block of the
        trunk; the structure module.
    """

    config: ESMFoldConfig
    layer: tuple[float, float]
    block: tuple[float, float]
    rest: tuple[float, float]

    def seconds(self, length: int, passes: int) -> float:
        """Return the estimate for a protein with `passes` passes through the trunk."""
        layers = self.config.lm.num_layers * _value(self.layer, _LAYER, length)
        block = self.config.trunk.num_blocks * _value(self.block, _BLOCK, length)
        return layers + passes * (block + _value(self.rest, _REST, length))


def measure_times(
    config: ESMFoldConfig, recipe: Recipe, running: Execution | None, device: torch.device, dtype: torch.dtype
) -> TimeEstimate:
    """Time one layer, one block and the structure module of a model's sizes, with random weights.

    Times do not depend on the values of weights or on how a recipe chooses codes, so weights are rounded to nearest.
    The measurement takes a few seconds, and the memory of one layer and one block.

    Parameters
    ----------
    config : ESMFoldConfig
        Sizes of the whole model.
    running : Execution or None
        How the model will run; it must not have converted another model. None: in float.
    dtype : torch.dtype
        Type of floats.
    """
    small = replace(config, lm=replace(config.lm, num_layers=1), trunk=replace(config.trunk, num_blocks=1))
    model = ESMFold(small).eval()
    randomize(model)
    model.set_compute_dtype(dtype).to(device)
    if running is not None and not recipe.is_float:
        nearest = replace(recipe, steps=[])
        model, _ = quantize(model, nearest, [_sequence(_WARM_UP)], execution="simulate", cache=False, inplace=True)
        model = running.convert(model)
    if isinstance(model.trunk.blocks, IntegerBlocks):
        # A recorded graph would run without the hooks that measure times.
        model.trunk.blocks = model.trunk.blocks.with_recorder(records=False)
    with _decoding_as_often(config, recipe):
        _run(model, _WARM_UP)
        measured = {length: _fastest(model, length) for length in _LENGTHS}
    return TimeEstimate(
        config, *(_fit(powers, {n: times[part] for n, times in measured.items()}) for part, powers in _PARTS.items())
    )


_PARTS: Mapping[str, _Powers] = {"lm.layers.0": _LAYER, "trunk.blocks.0": _BLOCK, "trunk.structure_module": _REST}


@contextmanager
def _decoding_as_often(config: ESMFoldConfig, recipe: Recipe) -> Iterator[None]:
    """Cache no decoded weights if the whole model has too many for the cache."""
    with torch.device("meta"):
        whole = ESMFold(config)
    limit = decoded_weights.limit
    if not recipe.is_float and sum(4 * parameter.numel() for parameter in whole.parameters()) > 2 * limit:
        decoded_weights.limit = 0
        decoded_weights.clear()
    try:
        yield
    finally:
        decoded_weights.limit = limit


def _fastest(model: ESMFold, length: int) -> dict[str, float]:
    """Return the seconds of each part, the minimum of several rounds."""
    rounds = [_run(model, length) for _ in range(_ROUNDS)]
    return {part: min(times[part] for times in rounds) for part in _PARTS}


@torch.no_grad()
def _run(model: ESMFold, length: int) -> dict[str, float]:
    times = dict.fromkeys(_PARTS, 0.0)
    batch = encode_complexes([_sequence(length)]).to(model.device)
    with _timed(model, times):
        model(batch, num_recycles=0)
    return times


@contextmanager
def _timed(model: ESMFold, times: dict[str, float]) -> Iterator[None]:
    """Add the seconds of each part to `times`."""

    def now() -> float:
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        return time.perf_counter()

    def before(part: str) -> None:
        times[part] -= now()

    def after(part: str) -> None:
        times[part] += now()

    handles = []
    for part in _PARTS:
        module: nn.Module = model.get_submodule(part)
        handles.append(module.register_forward_pre_hook(lambda *_, part=part: before(part)))
        handles.append(module.register_forward_hook(lambda *_, part=part: after(part)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _sequence(length: int) -> str:
    return "".join(random.Random(length).choices(AMINO_ACIDS, k=length))


def _fit(powers: _Powers, seconds: Mapping[int, float]) -> tuple[float, float]:
    """Return the factors of two powers of the length, neither of them negative."""
    lengths, measured = np.array([*seconds], dtype=float), np.array([*seconds.values()])
    columns = np.stack([lengths**power for power in powers], axis=1)
    first, second = np.linalg.solve(columns, measured).tolist()
    if second < 0:
        return float(measured[-1] / columns[-1, 0]), 0.0
    if first < 0:
        return 0.0, float(measured[-1] / columns[-1, 1])
    return first, second


def _value(factors: tuple[float, float], powers: _Powers, length: int) -> float:
    return sum(factor * length**power for factor, power in zip(factors, powers, strict=True))
