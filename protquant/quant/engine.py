"""The engine: runs the steps of a recipe on a model, and replaces modules by quantized twins."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from protquant.errors import ProtquantError
from protquant.quant.assignments import Assignment, Assignments
from protquant.quant.cache import StatisticsCache, calibrate_once
from protquant.quant.evidence import Evidence
from protquant.quant.fit import ActivationFitter, tensor_bytes, weight_report
from protquant.quant.formats import Codes, Quantizer, StaticQuantizer
from protquant.quant.layerwise import Stage, sweep
from protquant.quant.lengths import BinnedStatistics, in_bin
from protquant.quant.memory import release_freed
from protquant.quant.modules import QuantizedLinear
from protquant.quant.observers import Statistics
from protquant.quant.recipe import Recipe
from protquant.quant.replace import replace_modules
from protquant.quant.report import Report, SiteReport
from protquant.quant.steps import (
    Correction,
    Examples,
    LayerStep,
    LinkTransform,
    ModelTransform,
    Rounding,
    Tuning,
    WeightFit,
)
from protquant.quant.transforms import InputTransform, LinkLayers
from protquant.topology import Link, find_chains, find_links

__all__ = ["Engine"]

log = logging.getLogger(__name__)


class Engine:
    """Quantizes one model, in place, by one recipe.

    Parameters
    ----------
    assignments : Assignments
        The format of each site; steps may change it.
    examples : Examples or None
        Sequences to calibrate on; may be None for recipes without frozen ranges and without steps that need statistics.
    cache : StatisticsCache or None
        Cache of statistics; without an entry the model is run.
    scope : callable, optional
        Returns whether the parameter or module with a name is in the part of the model that is quantized; `assignments`
        have no sites outside of that part. By default it is the whole model.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        assignments: Assignments,
        examples: Examples | None,
        progress: bool = False,
        cache: StatisticsCache | None = None,
        scope: Callable[[str], bool] | None = None,
    ) -> None:
        self.model, self.recipe, self.assignments = model, recipe, assignments
        self._scope = scope
        self.steps = recipe.steps
        self.progress = progress
        self._cache = cache
        single = [step.name for step in self.steps if step.one_range]
        if single and recipe.calibration.bins:
            raise ProtquantError(
                f"recipe {recipe.name}: calibration.lengths asks for a range for each bin of lengths, and step "
                f"{single[0]} counts on one for all; leave out one of the two"
            )
        # Calibrate on sequences of the lengths that the recipe names.
        self._bins = recipe.calibration.bins
        self._examples = self._of_length(examples) if examples and examples.sequences and self._bins else examples
        self._float_bytes = sum(tensor_bytes(parameter) for _, parameter in self._parameters())
        # Counted before steps add channels: effective bits are per element of the original model.
        self._elements = {a.site.name: self._weight(a).numel() for a in assignments if not a.is_activation}
        self._outputs: dict[str, int] = {}
        self._reports: dict[str, SiteReport] = {}

    def run(
        self, statistics: Mapping[str, Statistics] | None = None, evidence: Mapping[str, Evidence] | None = None
    ) -> Report:
        """Run all steps, fit all formats, and return the report.

        Parameters
        ----------
        statistics : mapping, optional
            Statistics of the unchanged model.
        evidence : mapping, optional
            Statistics of the inputs of all `fitted_groups`, if all fit in memory; by default they are gathered block by
            block.
        """
        if self._scope is None:
            self.check_steps()
        for rotation in (step for step in self.steps if isinstance(step, ModelTransform)):
            rotation.apply(self.model, self.assignments)
        for transform in (step for step in self.steps if isinstance(step, LinkTransform)):
            self._transform(transform)
        for tuning in (step for step in self.steps if isinstance(step, Tuning)):
            tuning.tune(self.model, self.assignments, self.examples)
        self._fit(self._statistics(statistics), evidence)
        return self._report()

    def fitted_groups(self) -> list[tuple[str, ...]]:
        """Return the groups of linear layers that read one tensor and whose weights a step fits."""
        steps = [step for step in self.steps if isinstance(step, WeightFit | Rounding | Correction)]
        return [link.readers for link in self._links() if any(self._is_for(step, link) for step in steps)]

    def check_steps(self) -> None:
        """Check that every link transform finds a layer to change; works on a model without weights.

        Raises
        ------
        ProtquantError
            If a step finds no layer.
        """
        links = self._links()
        for step in self.steps:
            if isinstance(step, LinkTransform) and not any(self._is_for(step, link) for link in links):
                raise ProtquantError(f"recipe {self.recipe.name}: step {step.name} finds no layer to change")

    @property
    def examples(self) -> Examples:
        """The examples.

        Raises
        ------
        ProtquantError
            If there are no sequences.
        """
        if self._examples is None or not self._examples.sequences:
            raise ProtquantError(f"recipe {self.recipe.name} needs sequences to calibrate on, and none were given")
        return self._examples

    def _of_length(self, examples: Examples) -> Examples:
        try:
            chosen = [sequence for each in self._bins for sequence in in_bin(each, examples.sequences, examples.length)]
        except ProtquantError as error:
            raise ProtquantError(f"recipe {self.recipe.name}: {error}") from None
        return replace(examples, sequences=tuple(chosen))

    def _weight(self, assignment: Assignment) -> Tensor:
        weight = self.model.get_submodule(assignment.site.module).weight
        # A gain that a step has folded into other layers has no elements.
        return weight.detach() if isinstance(weight, Tensor) else torch.empty(0)

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.model.named_parameters() if self._is_inside(name))

    def _is_inside(self, path: str) -> bool:
        return self._scope is None or self._scope(path)

    def _links(self) -> list[Link]:
        """Return the links that the model declares, and one link for each other linear layer."""
        links = [link for link in find_links(self.model) if self._is_inside(link.readers[0])]
        known = {reader for link in links for reader in link.readers}
        linears = [
            path
            for path, module in self.model.named_modules()
            if isinstance(module, nn.Linear) and self._is_inside(path)
        ]
        return links + [Link((path,)) for path in linears if path not in known]

    def _is_for(self, step: LayerStep, link: Link) -> bool:
        return any(
            step.is_for(reader) and any((self.assignments.weight_format(reader), self.assignments.input_format(reader)))
            for reader in link.readers
        )

    def _sweep(self, groups: Collection[Sequence[str]], label: str, quantized: bool = False) -> Iterator[Stage]:
        examples = self.examples
        return sweep(
            self.model,
            examples.sequences,
            examples.forward,
            groups,
            quantized=quantized,
            progress=self.progress,
            label=label,
        )

    def _transform(self, step: LinkTransform) -> None:
        links = [link for link in self._links() if self._is_for(step, link)]
        if not links:  # the layers are in another part of the model
            return
        before = [assignment.format for assignment in self.assignments]
        changed = False
        for stage in self._sweep([link.readers for link in links], step.name):
            for link in links:
                if link.readers[0] in stage.evidence:
                    layers = LinkLayers(self.model, link)
                    step.apply(layers, stage.evidence[link.readers[0]], self.assignments)
                    changed |= layers.changed
        if self._scope is None and not changed and before == [assignment.format for assignment in self.assignments]:
            log.warning(
                "recipe %s: step %s changed none of the %d groups of layers that it looked at",
                self.recipe.name,
                step.name,
                len(links),
            )

    def _statistics(
        self, given: Mapping[str, Statistics] | None
    ) -> Mapping[str, Statistics] | Mapping[str, BinnedStatistics]:
        """Return the statistics of every activation; calibrates if none are given or a step changed the activations.

        Formats without frozen ranges need no statistics, but the report needs the number of values.
        """
        changed = any(isinstance(step, ModelTransform | LinkTransform | Tuning) for step in self.steps)
        formats = {a.site.name: a.format for a in self.assignments if a.is_activation and a.format is not None}
        frozen = [name for name, format_ in formats.items() if format_.needs_statistics]
        if frozen and self._bins:
            examples = self.examples
            parts = [self._calibrate(in_bin(each, examples.sequences, examples.length)) for each in self._bins]
        elif formats and self._examples is not None and self._examples.sequences and (given is None or changed):
            parts = [self._calibrate(self.examples.sequences)]
        else:
            parts = [{} if changed else dict(given or {})]
        seen = [name for name in parts[0] if all(name in part for part in parts)]
        missing = [name for name in frozen if name not in seen and self.assignments[name].quantizer is None]
        if missing:
            raise ProtquantError(
                f"recipe {self.recipe.name} freezes the ranges of {len(missing)} activations that were not calibrated, "
                f"the first being {missing[0]}; give sequences, or the statistics of calibrate() on this model"
            )
        if len(parts) == 1:
            return parts[0]
        return {name: BinnedStatistics(self._bins, tuple(part[name] for part in parts)) for name in seen}

    def _calibrate(self, sequences: Sequence[Any]) -> dict[str, Statistics]:
        steps = [s.to_config() for s in self.steps if isinstance(s, ModelTransform | LinkTransform | Tuning)]
        forward = self.examples.forward
        sites = None
        if self._scope is not None:
            sites = [a.site.name for a in self.assignments if a.is_activation]
        return calibrate_once(
            self.model, sequences, forward, self._cache, steps=steps, sites=sites, progress=self.progress
        )

    def _fit(
        self,
        statistics: Mapping[str, Statistics] | Mapping[str, BinnedStatistics],
        given: Mapping[str, Evidence] | None,
    ) -> None:
        fit_activation = ActivationFitter(self.model, self.recipe.calibration)
        remaining = {assignment.site.name: assignment for assignment in self.assignments}
        blocks = [block for chain in find_chains(self.model) for block in chain]
        # Block by block, so that only one block is in memory twice.
        for path, evidence in [(None, given)] if given is not None else self._fitting_order(blocks):
            inside = [a for a in remaining.values() if _lies_in(a.site.module, path, blocks)]
            release_freed()
            self._quantize(inside, statistics, fit_activation, evidence)
            for assignment in inside:
                del remaining[assignment.site.name]
        self._quantize(remaining.values(), statistics, fit_activation, {})

    def _fitting_order(self, blocks: Sequence[str]) -> Iterator[tuple[str | None, Mapping[str, Evidence]]]:
        """Yield the path of each block, with the statistics of its inputs for steps that fit weights.

        The path None stands for the layers outside of blocks.
        """
        if any(isinstance(step, WeightFit | Rounding | Correction) for step in self.steps):
            for stage in self._sweep(self.fitted_groups(), "quantize", self.recipe.propagate == "quantized"):
                yield stage.path, stage.evidence
        else:
            yield from ((block, {}) for block in blocks)

    def _quantize(
        self,
        assignments: Collection[Assignment],
        statistics: Mapping[str, Statistics] | Mapping[str, BinnedStatistics],
        fit_activation: ActivationFitter,
        evidence: Mapping[str, Evidence],
    ) -> None:
        corrections = [step for step in self.steps if isinstance(step, Correction)]
        fitted: dict[str, Quantizer] = {}
        rounded: dict[str, Codes] = {}
        floats: dict[str, Tensor] = {}
        for assignment in assignments:
            name, path = assignment.site.name, assignment.site.module
            quantizer: Quantizer | None
            try:
                if assignment.is_activation:
                    quantizer, report = fit_activation(assignment, statistics.get(name))
                else:
                    weight = self._weight(assignment)
                    self._outputs[name] = len(weight)
                    if path in evidence:
                        floats[path] = weight
                    quantizer, codes, report = self._fit_weight(assignment, weight, evidence.get(path))
                    if codes is not None:
                        rounded[name] = codes
            except ProtquantError as error:
                raise ProtquantError(f"recipe {self.recipe.name}, site {name}: {error}") from None
            self._reports[name] = report
            if quantizer is not None:
                fitted[name] = quantizer
        replace_modules(self.model, fitted, rounded)
        release_freed()
        for step in corrections:
            for path, weight in floats.items():
                layer = self.model.get_submodule(path)
                if isinstance(layer, QuantizedLinear) and step.is_for(path):
                    step.correct(layer, weight, evidence[path])

    def _fit_weight(
        self, assignment: Assignment, weight: Tensor, evidence: Evidence | None
    ) -> tuple[StaticQuantizer | None, Codes | None, SiteReport]:
        format_, path = assignment.format, assignment.site.module
        elements = self._elements[assignment.site.name]
        if format_ is None:
            return None, None, weight_report(assignment, weight, None, None, elements)
        if weight.numel() and not torch.stack(weight.aminmax()).isfinite().all():
            raise ProtquantError("the weight has a value that is not finite; the checkpoint may be damaged")
        quantizer = assignment.quantizer
        assert quantizer is None or isinstance(quantizer, StaticQuantizer)
        rounding = None
        if evidence is not None:
            for fit in (each for each in self.steps if isinstance(each, WeightFit)):
                if fit.is_for(path):
                    quantizer = fit.fit(weight, format_, evidence)
            rounding = next((each for each in self.steps if isinstance(each, Rounding) and each.is_for(path)), None)
        quantizer = (quantizer or format_.for_weight(weight)).to(weight.device)
        if rounding is None or evidence is None:
            codes = quantizer.encode(weight)
        else:
            codes = rounding.round(weight, quantizer, evidence)
        return quantizer, codes, weight_report(assignment, weight, quantizer, codes, elements)

    def _with_compute(self, site: SiteReport) -> SiteReport:
        """Return the report with the multiply-accumulates of a linear layer, if calibration has counted its inputs."""
        path = site.site.removesuffix(".weight")
        read = self._reports.get(f"{path}.input")
        if site.kind != "linear_weight" or read is None or read.elements is None:
            return site
        return replace(site, macs=read.elements * self._outputs[site.site])

    def _report(self) -> Report:
        sites = [self._with_compute(self._reports[assignment.site.name]) for assignment in self.assignments]
        # Reports have the bytes of weights that are sites; all other parameters are unchanged.
        counted = {f"{a.site.module}.weight" for a in self.assignments if not a.is_activation}
        other_bytes = sum(tensor_bytes(p) for name, p in self._parameters() if name not in counted)
        transforms = {id(m): m for m in self.model.modules() if isinstance(m, InputTransform)}
        added = sum(tensor_bytes(buffer) for module in transforms.values() for buffer in module.buffers())
        weights = sum(site.bytes or 0 for site in sites)
        return Report(self.recipe, sites, other_bytes + added + weights, self._float_bytes)


def _lies_in(path: str, block: str | None, blocks: Collection[str]) -> bool:
    """Return whether the module at `path` is in `block`, or if that is None, outside of all `blocks`."""
    if block is None:
        return not any(_lies_in(path, each, blocks) for each in blocks)
    return path.startswith(f"{block}.")
