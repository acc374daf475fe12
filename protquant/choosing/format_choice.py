"""Formats for every group of sites, from what each costs in bits and in drift."""

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
    """The knapsack: groups, what each format of theirs costs in bits and in drift, and what is fixed.

    Parameters
    ----------
    drifts : tuple of str
        To be small, each relative to what it sums to.
    formats : sequence of Format
        For weights.

    Attributes
    ----------
    groups : list of SiteGroup
    least_bits, most_bits : float
        Mean effective bits of weights that a choice can have.
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
        # What the first drift is to the power at which it adds up, by group and option.
        self._terms: dict[tuple[str, str], float] = {}
        self._activation_sum = 0.0
        weights = [group for group in self.groups if group.is_weight]
        if not weights:
            raise ProtquantError(f"recipe {base.name} leaves all weights of linear layers in float; name another base")
        sizes = [[self._bits(group, form) for form in formats] for group in weights]
        self.least_bits, self.most_bits = (
            (self.fixed_bits + sum(map(pick, sizes))) / self.elements for pick in (min, max)
        )

    def _weight(self, site: Site) -> Tensor:
        weight = self.network.get_submodule(site.module).weight
        assert isinstance(weight, Tensor)
        return weight.detach()

    def _fixed_bits(self, assignments: Assignments) -> float:
        """Bits of the weights that count and are not chosen: gains, and what the base leaves in float."""
        total = 0
        chosen = {site.name for site in self.sites}
        for a in assignments:
            if not a.site.is_weight or a.excluded or a.site.name in chosen:
                continue
            weight = self._weight(a.site)
            form = a.format
            total += tensor_bytes(weight) if form is None else coded_bytes(form.for_weight(weight), weight.numel())
        return 8.0 * total

    def _bits(self, group: SiteGroup, form: Format) -> int:
        """Bits of the weights of a group in one format, scales included."""
        weights = [self._weight(site) for site in group.sites]
        return sum(8 * coded_bytes(fitting_format(form, w).for_weight(w), w.numel()) for w in weights)

    def check_target(self, bits: float) -> None:
        """Refuse before anything is measured what no choice can reach."""
        if not bits >= self.least_bits:
            raise ProtquantError(
                f"a mean of {bits:g} bits cannot be reached: the smallest of these formats take {self.least_bits:.2f} "
                "with their scales; aim higher, or offer fewer bits or larger groups"
            )

    def learn(self, found: Sensitivity, target_activation_bits: float | None) -> None:
        """Take over what was measured."""
        activations: dict[str, list[Option]] = {}
        weights = {group.name for group in self.groups if group.is_weight}
        elements = {row["group"]: row["elements"] for row in found.rows if row["group"] not in weights}
        terms = {name: [max(float(row[name]), 0.0) ** DRIFT_POWERS[name] for row in found.rows] for name in self.drifts}
        # Each drift counts for what it is of its own sum over all parts and formats alike.
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
        """The recipe of least drift at a mean of `bits`, and that drift."""
        return self._recipe(allocate(self._weights, bits * self.elements - self.fixed_bits))

    @property
    def losses(self) -> tuple[float, float]:
        """The smallest and the largest sum of losses that there can be."""
        sums = [sum(pick(o.loss for o in options) for options in self._weights.values()) for pick in (min, max)]
        return sums[0], sums[1]

    def within_loss(self, loss: float) -> tuple[Recipe, float]:
        """The recipe of fewest bits whose losses sum to at most `loss`, and its drift."""
        turned = {group: [Option(o.name, o.loss, o.cost) for o in options] for group, options in self._weights.items()}
        return self._recipe(allocate(turned, loss))

    def _sum(self, found: Allocation) -> float:
        return sum(self._terms[group, option.name] for group, option in found.options.items())

    def _recipe(self, found: Allocation) -> tuple[Recipe, float]:
        predicted = (self._sum(found) + self._activation_sum) ** (1 / DRIFT_POWERS[self.drifts[0]])
        return self.recipe_of(_formats(found)), predicted

    def recipe_of(self, formats: Mapping[str, Format]) -> Recipe:
        """The base with these formats, by group, and those of the activations that were chosen."""
        sites = dict(self.base.sites)
        for group in self.groups:
            form = formats.get(group.name) or self._activations.get(group.name)
            if form is not None:
                # A copy is written to files without what is the default.
                sites.update({site.name: replace(self._fitting(form, site, group)) for site in group.sites})  # type: ignore[type-var]
        return replace(self.base, sites=sites)

    def _fitting(self, form: Format, site: Site, group: SiteGroup) -> Format:
        return fitting_format(form, self._weight(site)) if group.is_weight else form


def _scale(rows: Sequence[Mapping[str, Any]], values: Sequence[float]) -> float:
    """The geometric mean, over formats, of the sums over groups: few bits count no more than many."""
    sums: dict[str, float] = {}
    for row, value in zip(rows, values, strict=True):
        sums[row["config"]] = sums.get(row["config"], 0.0) + value
    positive = [value for value in sums.values() if value > 0]
    return math.exp(sum(map(math.log, positive)) / len(positive)) if positive else 1.0


def _formats(found: Allocation) -> dict[str, Format]:
    formats = {}
    for group, option in found.options.items():
        form = format_from_config(json.loads(option.name))
        assert form is not None
        formats[group] = form
    return formats
