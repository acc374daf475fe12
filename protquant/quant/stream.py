"""Quantize a model one block at a time, so that only one block is in memory in float.

The units of work are the layers outside of blocks, then each block. A unit is read, run on its calibration inputs,
quantized by its own `Engine`, given to a `UnitStore` and dropped. A `CallStore` stores the inputs of a block on the
calibration sequences (its calls) until the block is quantized:

1. the float model runs once on every sequence, with one block in memory at a time. This records the calls of the
first block of every chain, and gathers the statistics of layers outside of blocks;
2. every block runs on its calls, which yields its statistics and the calls of the next block, and is quantized.

Every block gets the inputs that it has in the float model, as in `quantize`, so the codes are the same, bit by bit.
There is one exception: if a step rescales layers (SmoothQuant, AWQ), ranges may differ in the last bit, because
`quantize` calibrates the whole rescaled model.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import nn

from protquant.errors import ProtquantError
from protquant.quant.assignments import Assignments
from protquant.quant.calibrate import calibrate
from protquant.quant.engine import Engine
from protquant.quant.layerwise import Call, gathering, record_calls
from protquant.quant.memory import release_freed
from protquant.quant.observers import Statistics
from protquant.quant.quantize import needs_statistics, plan
from protquant.quant.recipe import Recipe
from protquant.quant.report import Report
from protquant.quant.steps import Examples, LinkTransform, ModelTransform, Tuning
from protquant.sites import Site
from protquant.topology import find_chains

__all__ = ["CallStore", "FloatWeights", "UnitStore", "needs_whole_model", "quantize_stream"]

Tell = Callable[[str, str, int, int, str], object]
"""Progress callback. Arguments: kind of work, its unit (`block`), number done, number in all, current item."""


class FloatWeights(Protocol):
    """Source of the float weights of a model."""

    def read_into(self, model: nn.Module, unit: str | None) -> None:
        """Load the weights of a unit into the model: a block by its path, or None for the layers outside of blocks."""

    def forget_pages(self, unit: str | None) -> None:
        """Release the memory that was used to read a unit."""

    def reading_blocks(self, model: nn.Module, blocks: Collection[str]) -> AbstractContextManager[None]:
        """Return a context in which blocks have weights only during their calls."""


class UnitStore(Protocol):
    """Storage of quantized units."""

    def report(self, unit: str | None) -> Report | None:
        """Return the report on a stored unit; None if it is not stored."""

    def put(self, model: nn.Module, unit: str | None, report: Report) -> None:
        """Store a unit of `model`."""


class CallStore(Protocol):
    """Storage of the calls of blocks, by block and index of the sequence."""

    def put(self, block: str, index: int, calls: Sequence[Call]) -> None:
        """Store the calls of a block on one sequence."""

    def get(self, block: str, index: int) -> list[Call]:
        """Return the calls of a block on one sequence."""

    def drop(self, block: str) -> None:
        """Delete the calls of a block on all sequences."""


def needs_whole_model(recipe: Recipe) -> str:
    """Return why a recipe cannot be applied one block at a time; empty if it can."""
    for step in recipe.steps:
        if isinstance(step, ModelTransform | Tuning):
            return f"step {step.name} changes all blocks together"
    if recipe.calibration.bins:
        return "calibration.lengths has a range for each bin of lengths"
    if recipe.propagate == "quantized":
        return "propagate: quantized runs blocks on what quantized blocks give"
    return ""


def quantize_stream(
    model: nn.Module,
    recipe: Recipe,
    examples: Examples | None,
    weights: FloatWeights,
    units: UnitStore,
    calls: CallStore,
    tell: Tell,
    counted: Mapping[str, Statistics] | None = None,
) -> Report:
    """Quantize a model one block at a time.

    Parameters
    ----------
    model : nn.Module
        The model without weights (on the meta device); it cannot be used afterwards.
    examples : Examples or None
        Sequences to calibrate on; may be None for recipes without frozen ranges and without steps.
    weights : FloatWeights
        Source of the weights.
    units : UnitStore
        Storage of the quantized units. Units that it already has are skipped.
    calls : CallStore
        Storage of the calls of blocks.
    tell : callable
        Called with progress.
    counted : mapping, optional
        Result of `count_activations`, for the report if no sequences are run.

    Returns
    -------
    Report
        Report on all sites, equal to that of `quantize`.

    Raises
    ------
    ProtquantError
        If the recipe needs the whole model, or sequences that are not given, or a step or format does not fit the
        model; see `plan` for more.
    """
    if why := needs_whole_model(recipe):
        raise ProtquantError(f"recipe {recipe.name} cannot be taken one block at a time: {why}")
    assignments = plan(model, recipe)
    Engine(model, recipe, assignments, None).check_steps()
    if (recipe.steps or needs_statistics(assignments)) and (examples is None or not examples.sequences):
        raise ProtquantError(f"recipe {recipe.name} needs sequences to calibrate on, and none were given")
    stream = _Stream(model, recipe, assignments, examples, weights, calls, tell, counted or {})
    names: list[str | None] = [None, *stream.blocks]
    reports = []
    for number, unit in enumerate(names):
        report = units.report(unit)
        if report is None:
            tell("blocks", "block", number, len(names), unit or "outside of blocks")
            report = stream.quantize(unit)
            units.put(model, unit, report)
        stream.drop(unit)
        reports.append(report)
    tell("blocks", "block", len(names), len(names), "")
    sites = {site.site: site for report in reports for site in report.sites}
    return Report(
        recipe,
        [sites[assignment.site.name] for assignment in assignments],
        sum(report.weight_bytes for report in reports),
        sum(report.float_weight_bytes for report in reports),
    )


class _Stream:
    """Quantizes the units of one model one after the other."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        assignments: Assignments,
        examples: Examples | None,
        weights: FloatWeights,
        calls: CallStore,
        tell: Tell,
        counted: Mapping[str, Statistics],
    ) -> None:
        self._tell, self._counted = tell, counted
        self.model, self.recipe, self.assignments = model, recipe, assignments
        self.weights, self.calls = weights, calls
        self.examples = examples if examples is not None and examples.sequences else None
        self.chains = find_chains(model)
        self.blocks = [block for chain in self.chains for block in chain]
        self._next = {block: after for chain in self.chains for block, after in pairwise(chain)}
        # Steps that change layers need statistics of the float layers; the changed layers run a second time for their
        # ranges.
        self._changes = any(isinstance(step, LinkTransform) for step in recipe.steps)

    def quantize(self, unit: str | None) -> Report:
        """Read the float weights of a unit, and quantize it in place."""
        self.weights.read_into(self.model, unit)
        own = Assignments(a for a in self.assignments if self._is_in(a.site, unit))
        sites = [a.site.name for a in own if a.is_activation and a.format is not None]
        left = [a.site.name for a in own if a.is_activation and a.format is None]
        model = self.model if unit is None else _holder(unit, self.model.get_submodule(unit))
        examples = None
        statistics = {name: seen for name, seen in self._counted.items() if name in frozenset(sites + left)}
        if self.examples is not None:
            indices = range(len(self.examples.sequences))
            forward, rerun = (
                (self._record, self._run_whole) if unit is None else (self._advance(unit), self._rerun(unit))
            )
            examples = replace(self.examples, sequences=tuple(indices), forward=rerun)
        engine = Engine(model, self.recipe, own, examples, scope=lambda path: self._scope(path, unit))
        if examples is None:
            return engine.run(statistics)
        with self._running(unit):
            if self._changes:
                calibrate(model, indices, forward, sites=[], counted=left)
                return engine.run()
            with gathering(model, engine.fitted_groups()) as evidence:
                statistics = calibrate(model, indices, forward, sites=sites, counted=left)
                seen = evidence()
            return engine.run(statistics, seen)

    def _running(self, unit: str | None) -> AbstractContextManager[None]:
        """Return a context to run a unit in; layers outside of blocks need all blocks, which are loaded in turn."""
        return self.weights.reading_blocks(self.model, self.blocks) if unit is None else nullcontext()

    def drop(self, unit: str | None) -> None:
        """Release a finished unit and its calls."""
        if unit is not None:
            self.model.set_submodule(unit, nn.Identity())
            self.calls.drop(unit)
        self.weights.forget_pages(unit)
        release_freed()

    def _is_in(self, site: Site, unit: str | None) -> bool:
        return self._scope(site.module, unit)

    def _scope(self, path: str, unit: str | None) -> bool:
        if unit is not None:
            return path.startswith(f"{unit}.")
        return not any(path.startswith(f"{block}.") for block in self.blocks)

    def _run_whole(self, model: nn.Module, index: int) -> object:
        assert self.examples is not None
        return self.examples.forward(model, self.examples.sequences[index])

    def _record(self, model: nn.Module, index: int) -> object:
        """Run the whole model on a sequence, and store the calls of the first block of each chain."""
        assert self.examples is not None
        number = len(self.examples.sequences)
        self._tell("float model", "sequence", index, number, "")
        with record_calls(model, [chain[0] for chain in self.chains]) as recorded:
            for lists in recorded.values():
                lists.append([])
            self._run_whole(model, index)
        for block, lists in recorded.items():
            self.calls.put(block, index, lists[0])
        self._tell("float model", "sequence", index + 1, number, "")
        return None

    def _rerun(self, unit: str) -> Callable[[nn.Module, int], list[Call]]:
        block: Any = self.model.get_submodule(unit)

        def run(_model: nn.Module, index: int) -> list[Call]:
            with torch.no_grad():
                return [block.next_inputs(inputs, block(*inputs)) for inputs in self.calls.get(unit, index)]

        return run

    def _advance(self, unit: str) -> Callable[[nn.Module, int], None]:
        run, after = self._rerun(unit), self._next.get(unit)

        def advance(model: nn.Module, index: int) -> None:
            next_calls = run(model, index)
            if after is not None:
                self.calls.put(after, index, next_calls)

        return advance


def _holder(path: str, block: nn.Module) -> nn.Module:
    """Return a module that contains only `block`, at `path`."""
    root = node = nn.Module()
    *parents, name = path.split(".")
    for parent in parents:
        child = nn.Module()
        node.add_module(parent, child)
        node = child
    node.add_module(name, block)
    return root
