"""Quantize a model by a recipe: run the recipe's steps, then replace modules by quantized twins."""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from torch import nn

from protquant.errors import ProtquantError
from protquant.quant.assignments import Assignment, Assignments
from protquant.quant.cache import StatisticsCache
from protquant.quant.engine import Engine
from protquant.quant.modules import ActivationQuantizer, QuantizedLayerNorm, QuantizedLinear
from protquant.quant.observers import Statistics
from protquant.quant.recipe import Recipe, load_recipe
from protquant.quant.report import Report
from protquant.quant.steps import Examples, ModelTransform
from protquant.sites import find_sites

__all__ = ["needs_sequences", "needs_statistics", "plan", "quantize"]

_Model = TypeVar("_Model", bound=nn.Module)


def plan(model: nn.Module, recipe: Recipe | str | Path) -> Assignments:
    """Return the format that `recipe` gives to each site of `model`, before any step runs; the model is not changed.

    Raises
    ------
    ProtquantError
        Where the model has no sites, is quantized already, or a pattern of the recipe matches none.
    """
    if any(isinstance(m, ActivationQuantizer | QuantizedLinear | QuantizedLayerNorm) for m in model.modules()):
        raise ProtquantError("the model is quantized already; quantize the float model")
    if isinstance(model, nn.Linear | nn.LayerNorm):
        raise ProtquantError("a bare layer has no names for its sites; wrap it in a module")
    # A LayerNorm without a gain has no weight site.
    sites = [s for s in find_sites(model) if not s.is_weight or _has_weight(model, s.module)]
    return Assignments(load_recipe(recipe).assign(sites))


def _has_weight(model: nn.Module, path: str) -> bool:
    return model.get_submodule(path).weight is not None


def needs_statistics(assignments: Iterable[Assignment]) -> bool:
    """Return whether any activation has a format whose range is frozen after calibration."""
    return any(a.is_activation and a.format is not None and a.format.needs_statistics for a in assignments)


def needs_sequences(model: nn.Module, recipe: Recipe | str | Path) -> bool:
    """Return whether `recipe` has to run `model` on sequences, to freeze ranges or for its steps."""
    recipe = load_recipe(recipe)
    steps = [step for step in recipe.steps if not isinstance(step, ModelTransform)]
    return bool(steps) or needs_statistics(plan(model, recipe))


def quantize(
    model: _Model,
    recipe: Recipe | str | Path,
    statistics: Mapping[str, Statistics] | None = None,
    *,
    examples: Examples | None = None,
    cache: StatisticsCache | None = None,
    inplace: bool = False,
    progress: bool = False,
) -> tuple[_Model, Report]:
    """Quantize `model` by `recipe`.

    Parameters
    ----------
    recipe : Recipe, str or Path
        A recipe, the name of a shipped one, or the path of a recipe file.
    statistics : mapping, optional
        Result of `calibrate` on `model`, which saves a calibration. It is ignored if a step changes activations.
    examples : Examples, optional
        Sequences, and how to run the model on them. Steps need them, and so does calibration without `statistics`.
    cache : StatisticsCache, optional
        Statistics of earlier calibrations; new ones are added to it.
    inplace : bool
        Whether to change `model` itself, which saves the memory of a copy.
    progress : bool
        Whether to draw progress bars on standard error.

    Returns
    -------
    nn.Module
        Model of the same class with quantized sites. Quantized weights have `requires_grad=False`.
    Report
        One entry for every site.

    Raises
    ------
    ProtquantError
        If statistics or examples are missing, or a step or format does not fit the model; see `plan` for more.
    """
    recipe = load_recipe(recipe)
    assignments = plan(model, recipe)
    if not inplace:
        model = copy.deepcopy(model)
    return model, Engine(model, recipe, assignments, examples, progress, cache).run(statistics)
