"""Choose a format for every group of sites by bits and drift."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from protquant.choosing.sensitivity import Sensitivity
from protquant.errors import ProtquantError
from protquant.models import ProteinModel
from protquant.options import DRIFT_POWERS
from protquant.quant import Assignments, Format, Recipe, format_from_config, plan
from protquant.quant.allocation import Allocation, Option, allocate
from protquant.quant.fit import coded_bytes, tensor_bytes
from protquant.quant.sensitivity import Grouping, SiteGroup, fitting_format, group_sites
from protquant.sites import Site

__all__ = ["FormatChoice"]


class FormatChoice:
    """The knapsack problem: groups, bits and drift of each of their formats, and fixed bits.

    Parameters
    ----------
    drifts : tuple of str
        Drifts to minimize, each relative to its own sum.
    formats : sequence of Format
        Formats for weights.

    Attributes
    ----------
    groups : list of SiteGroup
    least_bits, most_bits : float
        Smallest and largest mean effective bits of weights that a choice can have.
    """

    def __init__(
        self, network: ProteinModel, base: Recipe, by: Grouping, drifts: tuple[str, ...], formats: Sequence[Format]
    ) -> None:
        self.network, self.base, self.drifts = network, base, drifts
        assignments = plan(network, base)
        self.sites = [a.site for a in assignments if a.format is not None and a.site.kind != "norm_gain"]
        self.groups = group_sites(network, self.sites, by)
        self.elements = sum(self._weight(a.site).numel() for a in assignments if a.site.is_weight and not a.excluded)
        self.fixed_bits = self._fixed_bits(assignments)
        self._weights: dict[str, list[Option]] = {}
        self._activations: dict[str, Format] = {}
        # The first drift to the power at which drifts add up, by group and option.
        self._terms: dict[tuple[str, str], float] = {}
        self._activation_sum = 0.0
        weights = [group for group in self.groups if group.is_weight]
        if not weights:
            raise ProtquantError(f"recipe {base.name} leaves all weights of linear layers in float; name another base")
        sizes = [[self._bits(group, format_) for format_ in formats] for group in weights]
        self.least_bits, self.most_bits = (
            (self.fixed_bits + sum(map(pick, sizes))) / self.elements for pick in (min, max)
        )

    def _weight(self, site: Site) -> Tensor:
        weight = self.network.get_submodule(site.module).weight
        assert isinstance(weight, Tensor)
        return weight.detach()

    def _fixed_bits(self, assignments: Assignments) -> float:
        """Return the bits of weights whose format is not chosen: gains, and weights that the base leaves in float."""
        total = 0
        chosen = {site.name for site in self.sites}
        for a in assignments:
            if not a.site.is_weight or a.excluded or a.site.name in chosen:
                continue
            weight = self._weight(a.site)
            format_ = a.format
            total += (
                tensor_bytes(weight) if format_ is None else coded_bytes(format_.for_weight(weight), weight.numel())
            )
        return 8.0 * total

    def _bits(self, group: SiteGroup, format_: Format) -> int:
        """Return the bits of the weights of a group in one format, scales included."""
        weights = [self._weight(site) for site in group.sites]
        return sum(8 * coded_bytes(fitting_format(format_, w).for_weight(w), w.numel()) for w in weights)

    def check_target(self, bits: float) -> None:
        """Raise an error, before any measurement, for a target that no choice can reach."""
        if not bits >= self.least_bits:
            raise ProtquantError(
                f"a mean of {bits:g} bits cannot be reached: the smallest of these formats take {self.least_bits:.2f} "
                "with their scales; aim higher, or offer fewer bits or larger groups"
            )

    def learn(self, found: Sensitivity, target_activation_bits: float | None) -> None:
        """Set the measured sensitivities, and choose the formats of activations."""
        activations: dict[str, list[Option]] = {}
        weights = {group.name for group in self.groups if group.is_weight}
        elements = {row["group"]: row["elements"] for row in found.rows if row["group"] not in weights}
        terms = {name: [max(float(row[name]), 0.0) ** DRIFT_POWERS[name] for row in found.rows] for name in self.drifts}
        # Each drift is divided by its own sum over parts, so that all drifts have the same weight.
        scales = {name: _scale(found.rows, values) for name, values in terms.items()}
        for number, row in enumerate(found.rows):
            into = self._weights if row["group"] in weights else activations
            loss = sum(terms[name][number] / scales[name] for name in self.drifts)
            option = Option(row["config"], float(row["bits"]) * float(row["elements"]), loss)
            into.setdefault(row["group"], []).append(option)
            self._terms[row["group"], row["config"]] = terms[self.drifts[0]][number]
        if target_activation_bits is not None:
            try:
                chosen = allocate(activations, target_activation_bits * sum(elements.values()))
            except ProtquantError as error:
                raise ProtquantError(f"activations: {error} bits; aim higher, or offer fewer bits") from None
            self._activations = _formats(chosen)
            self._activation_sum = self._sum(chosen)

    def within_bits(self, bits: float) -> tuple[Recipe, float]:
        """Return the recipe of least drift at a mean of `bits`, and its predicted drift."""
        return self._recipe(allocate(self._weights, bits * self.elements - self.fixed_bits))

    @property
    def losses(self) -> tuple[float, float]:
        """Smallest and largest possible sum of losses."""
        sums = [sum(pick(o.loss for o in options) for options in self._weights.values()) for pick in (min, max)]
        return sums[0], sums[1]

    def within_loss(self, loss: float) -> tuple[Recipe, float]:
        """Return the recipe of fewest bits whose losses sum to at most `loss`, and its predicted drift."""
        swapped = {group: [Option(o.name, o.loss, o.cost) for o in options] for group, options in self._weights.items()}
        return self._recipe(allocate(swapped, loss))

    def _sum(self, found: Allocation) -> float:
        return sum(self._terms[group, option.name] for group, option in found.options.items())

    def _recipe(self, found: Allocation) -> tuple[Recipe, float]:
        predicted = (self._sum(found) + self._activation_sum) ** (1 / DRIFT_POWERS[self.drifts[0]])
        return self.recipe_of(_formats(found)), predicted

    def recipe_of(self, formats: Mapping[str, Format]) -> Recipe:
        """Return the base recipe with these formats, by group, and the chosen formats of activations."""
        sites = dict(self.base.sites)
        for group in self.groups:
            format_ = formats.get(group.name) or self._activations.get(group.name)
            if format_ is not None:
                # A copy, because copies are written to files without default settings.
                sites.update({site.name: replace(self._fitting(format_, site, group)) for site in group.sites})  # type: ignore[type-var]
        return replace(self.base, sites=sites)

    def _fitting(self, format_: Format, site: Site, group: SiteGroup) -> Format:
        return fitting_format(format_, self._weight(site)) if group.is_weight else format_


def _scale(rows: Sequence[Mapping[str, Any]], values: Sequence[float]) -> float:
    """Return the geometric mean, over formats, of the sums over groups, so that formats of few bits do not dominate."""
    sums: dict[str, float] = {}
    for row, value in zip(rows, values, strict=True):
        sums[row["config"]] = sums.get(row["config"], 0.0) + value
    positive = [value for value in sums.values() if value > 0]
    return math.exp(sum(map(math.log, positive)) / len(positive)) if positive else 1.0


def _formats(found: Allocation) -> dict[str, Format]:
    formats = {}
    for group, option in found.options.items():
        format_ = format_from_config(json.loads(option.name))
        assert format_ is not None
        formats[group] = format_
    return formats
