"""Which format every site of a model is to have: what a recipe says, and what its steps make of that."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from protquant.quant.formats import Format, Quantizer
from protquant.sites import Site

__all__ = ["Assignment", "Assignments"]


@dataclass(frozen=True)
class Assignment:
    """A site, its format (None: float), what decided it, and whether that was the recipe's `exclude`.

    Attributes
    ----------
    quantizer : Quantizer or None
        Fitted by a step; None: to be fitted by the format.
    """

    site: Site
    format: Format | None
    reason: str
    excluded: bool = False
    quantizer: Quantizer | None = None

    @property
    def is_activation(self) -> bool:
        """Whether the site is what passes when the model runs."""
        return not self.site.is_weight


class Assignments:
    """The assignments of a model's sites, by name, in its order; steps may change them."""

    def __init__(self, assignments: Iterable[Assignment]) -> None:
        self._by_name = {assignment.site.name: assignment for assignment in assignments}

    def __iter__(self) -> Iterator[Assignment]:
        return iter(list(self._by_name.values()))

    def __getitem__(self, site: str) -> Assignment:
        return self._by_name[site]

    def weight_format(self, linear: str) -> Format | None:
        """Format of the weight of the linear layer at this path."""
        return self._by_name[f"{linear}.weight"].format

    def input_format(self, linear: str) -> Format | None:
        """Format of the input of the linear layer at this path."""
        return self._by_name[f"{linear}.input"].format

    def set_format(self, site: str, form: Format | None, reason: str) -> None:
        """Give a site another format; `reason` is shown in reports."""
        self._by_name[site] = replace(self._by_name[site], format=form, reason=reason, quantizer=None)

    def set_quantizer(self, site: str, quantizer: Quantizer, reason: str) -> None:
        """Give a site a quantizer that is fitted already, of the format that it is to have."""
        self._by_name[site] = replace(self._by_name[site], quantizer=quantizer, reason=reason)
