"""Measure how the output of a model drifts when a single part is quantized, for every part and several formats.

Parts are sites or groups of sites. Weights and activations are never in one group, because their formats differ.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

from torch import Tensor, nn

from protquant.errors import ProtquantError, suggestion
from protquant.quant.assignments import Assignment
from protquant.quant.fit import ActivationFitter, coded_bytes
from protquant.quant.formats import Format, Quantizer, StaticQuantizer
from protquant.quant.in_place import quantized_in_place
from protquant.quant.observers import Statistics
from protquant.quant.ranges import Calibration
from protquant.quant.replay import Replay
from protquant.reporting.steps import Steps
from protquant.sites import Site
from protquant.topology import find_chains

__all__ = ["GROUPINGS", "FormatTrials", "Grouping", "SiteGroup", "Trial", "fitting_format", "group_sites"]

Grouping = Literal["site", "module", "kind", "block"]
GROUPINGS: tuple[str, ...] = get_args(Grouping)
_SMALLEST_GROUP = 16


@dataclass(frozen=True)
class SiteGroup:
    """Sites that get the same format together.

    Attributes
    ----------
    name : str
        Name of the only site, or path and content of the group: `layers.3.attn weights`.
    block : str
        Path of the block; outside of blocks, the first component of the path.
    part : str
        The part of the block, named alike in all blocks of a chain.
    """

    name: str
    block: str
    part: str
    sites: tuple[Site, ...]

    @property
    def is_weight(self) -> bool:
        """Whether the sites are weights; otherwise all are activations."""
        return self.sites[0].is_weight


@dataclass(frozen=True)
class Trial:
    """Result for one group in one format, with all other sites in float.

    Attributes
    ----------
    elements : int
        Number of elements of the weights, or of the activations during calibration.
    bits : float
        Effective bits of an element; for weights, scales are included.
    drift : dict
        Measures of drift by name, averaged over the sequences.
    """

    group: SiteGroup
    format: Format
    elements: int
    bits: float
    drift: dict[str, float]


def group_sites(model: nn.Module, sites: Collection[Site], by: str) -> list[SiteGroup]:
    """Return groups of `sites`, in the order of the model.

    Parameters
    ----------
    by : {"site", "module", "kind", "block"}
        `site`: one group for each site. `module`: a part of a block, such as its attention or one triangle update.
        `kind`: a kind of site (`protquant.sites`) in a block. `block`: all weights, or all activations, of a block.

    Raises
    ------
    ProtquantError
        If `by` has another value.
    """
    if by not in GROUPINGS:
        raise ProtquantError(f"sites are grouped by {', '.join(GROUPINGS)}, not {by!r}; {suggestion(by, GROUPINGS)}")
    blocks = [block for chain in find_chains(model) for block in chain]
    groups: dict[str, SiteGroup] = {}
    for site in sites:
        block = next((each for each in blocks if site.name.startswith(f"{each}.")), None)
        inside = site.name if block is None else site.name[len(block) + 1 :]
        where = inside.split(".", maxsplit=1)[0] if block is None else block
        role = "weights" if site.is_weight else "activations"
        module = inside.split(".", maxsplit=1)[0]
        part = {"site": inside, "module": f"{module} {role}", "kind": site.kind, "block": role}[by]
        name = site.name if by == "site" else f"{where} {part}"
        if by == "module":
            name = f"{where} {role}" if block is None else f"{block}.{module} {role}"
        known = groups.get(name)
        groups[name] = SiteGroup(name, where, part, (*known.sites, site) if known else (site,))
    return list(groups.values())


def fitting_format(format_: Format, weight: Tensor) -> Format:
    """Return the same format with the largest group size that divides the rows of `weight`, or with whole rows."""
    size = getattr(format_, "group_size", None)
    if size is None or weight.ndim < 2 or weight.shape[-1] % size == 0:
        return format_
    common = math.gcd(size, weight.shape[-1])
    if common >= _SMALLEST_GROUP:
        return replace(format_, group_size=common)  # type: ignore[type-var]
    return replace(format_, group_size=None, granularity="channel")  # type: ignore[type-var]


class FormatTrials:
    """Quantizes one group at a time, in place, and measures the drift of the output; the model is restored afterwards.

    Parameters
    ----------
    sequences, forward
        See `calibrate`; `forward` returns the output that `drift` compares.
    drift : callable
        Returns measures of drift, by name, between an output and that of the float model; 0 if they are equal.
    statistics, calibration
        Statistics of activations, and the rule for their ranges.

    Raises
    ------
    ProtquantError
        If there are no sequences.
    """

    def __init__(
        self,
        model: nn.Module,
        sequences: Sequence[Any],
        forward: Callable[[Any, Any], Any],
        drift: Callable[[Any, Any], Mapping[str, float]],
        *,
        statistics: Mapping[str, Statistics] | None = None,
        calibration: Calibration | None = None,
        progress: bool = False,
    ) -> None:
        if not sequences:
            raise ProtquantError("there are no sequences to measure drift on")
        self.model, self.drift, self.progress = model, drift, progress
        self.sequences, self.forward = sequences, forward
        self.statistics, self.calibration = statistics or {}, calibration or Calibration()

    @cached_property
    def _recorded(self) -> tuple[Replay, list[Any], "_Fitter"]:
        """The state that all trials share; the float model runs at the first access."""
        replay = Replay(self.model, self.sequences, self.forward)
        indices = range(len(self.sequences))
        bar = Steps(indices, desc="float", unit="sequence", disable=not self.progress, leave=False)
        return replay, [replay.record(index) for index in bar], _Fitter(self.model, self.statistics, self.calibration)

    def __call__(self, group: SiteGroup, format_: Format) -> Trial:
        """Return the trial of one group in one format.

        Raises
        ------
        ProtquantError
            If the format cannot be fitted.
        """
        training = self.model.training
        self.model.eval()
        try:
            replay, outputs, fit = self._recorded
            changed = {site.module for site in group.sites}
            quantizers, elements, bits = fit(group, format_)
            with quantized_in_place(self.model, quantizers):
                measured = [self.drift(replay.run(index, changed), output) for index, output in enumerate(outputs)]
        finally:
            self.model.train(training)
        means = {name: sum(each[name] for each in measured) / len(measured) for name in measured[0]}
        return Trial(group, format_, elements, bits, means)


class _Fitter:
    """Fits one format to all sites of a group."""

    def __init__(self, model: nn.Module, statistics: Mapping[str, Statistics], calibration: Calibration) -> None:
        self.model, self.statistics = model, statistics
        self._fit_activation = ActivationFitter(model, calibration)

    def __call__(self, group: SiteGroup, format_: Format) -> tuple[dict[Site, Quantizer], int, float]:
        quantizers: dict[Site, Quantizer] = {}
        elements, bits = 0, 0.0
        for site in group.sites:
            try:
                quantizer, count, effective = (
                    self._weight(site, format_) if site.is_weight else self._input(site, format_)
                )
            except ProtquantError as error:
                raise ProtquantError(f"site {site.name}: {error}") from None
            quantizers[site] = quantizer
            elements += count
            bits += effective * count
        return quantizers, elements, bits / elements

    def _weight(self, site: Site, format_: Format) -> tuple[Quantizer, int, float]:
        weight = self.model.get_submodule(site.module).weight
        assert isinstance(weight, Tensor)
        weight = weight.detach()
        format_ = fitting_format(format_, weight)
        quantizer: StaticQuantizer = format_.for_weight(weight).to(weight.device)
        return quantizer, weight.numel(), 8 * coded_bytes(quantizer, weight.numel()) / weight.numel()

    def _input(self, site: Site, format_: Format) -> tuple[Quantizer, int, float]:
        quantizer, report = self._fit_activation(Assignment(site, format_, "tried"), self.statistics.get(site.name))
        assert quantizer is not None
        return quantizer, report.elements or 1, report.effective_bits
