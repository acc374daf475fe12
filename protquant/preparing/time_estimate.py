"""How long folding will take, from a short measurement: small proteins through one block of each kind."""

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
# Of the length. To read weights takes as long whatever the length, and all else of a layer is linear but for attention,
# a small part of it; linear layers of pairs, and products over a third residue; residues and pairs.
_LAYER, _BLOCK, _REST = (0, 1), (2, 3), (1, 2)


@dataclass(frozen=True)
class TimeEstimate:
    """Seconds of the parts of a folding model.

    Attributes
    ----------
    config : ESMFoldConfig
        Sizes of the model.
    layer, block, rest : tuple of float
        A layer of the language model and what else runs once for a protein; a block of the trunk; the structure module.
        Each is the sum of two powers of the length times these.
    """

    config: ESMFoldConfig
    layer: tuple[float, float]
    block: tuple[float, float]
    rest: tuple[float, float]

    def seconds(self, length: int, passes: int) -> float:
        """Return the estimate for a protein that goes through the trunk `passes` times."""
        layers = self.config.lm.num_layers * _value(self.layer, _LAYER, length)
        block = self.config.trunk.num_blocks * _value(self.block, _BLOCK, length)
        return layers + passes * (block + _value(self.rest, _REST, length))


def measure_times(
    config: ESMFoldConfig, recipe: Recipe, running: Execution | None, device: torch.device, dtype: torch.dtype
) -> TimeEstimate:
    """Time one layer and one block of a model's sizes, with random weights, and its structure module.

    Times do not depend on what weights say, nor on how a recipe chooses codes: here they are rounded to nearest. It
    takes some seconds, and the memory of one layer and one block.

    Parameters
    ----------
    config : ESMFoldConfig
        Of the whole model.
    running : Execution or None
        What the model is to run as; it has not converted another model. None for one that stays in float.
    dtype : torch.dtype
        Of the floats.
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
        # A recording would run without the hooks that measure its parts.
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
    """Keep no decoded weights where the whole model has too many for most to be kept."""
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
    """Seconds of each part, the best of some rounds."""
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
    """Add up how long each part takes."""

    def now() -> float:
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        return time.perf_counter()

    def before(part: str) -> None:
        times[part] -= now()

    def behind(part: str) -> None:
        times[part] += now()

    handles = []
    for part in _PARTS:
        module: nn.Module = model.get_submodule(part)
        handles.append(module.register_forward_pre_hook(lambda *_, part=part: before(part)))
        handles.append(module.register_forward_hook(lambda *_, part=part: behind(part)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _sequence(length: int) -> str:
    return "".join(random.Random(length).choices(AMINO_ACIDS, k=length))


def _fit(powers: _Powers, seconds: Mapping[int, float]) -> tuple[float, float]:
    """Factors of two powers of the length, none of them negative."""
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
