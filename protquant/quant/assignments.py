"""The format of every site of a model, as the recipe assigns it and its steps change it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from protquant.quant.formats import Format, Quantizer
from protquant.sites import Site

__all__ = ["Assignment", "Assignments"]


@dataclass(frozen=True)
class Assignment:
    """A site, its format (None: float), the reason, and whether the recipe's `exclude` is the reason.

    Attributes
    ----------
    quantizer : Quantizer or None
        Quantizer that a step has fitted; if None, the format fits one.
    """

    site: Site
    format: Format | None
    reason: str
    excluded: bool = False
    quantizer: Quantizer | None = None

    @property
    def is_activation(self) -> bool:
        """Whether the site is an activation."""
        return not self.site.is_weight


class Assignments:
    """Assignments of the sites of a model, by name, in the order of the model; steps may change them."""

    def __init__(self, assignments: Iterable[Assignment]) -> None:
        self._by_name = {assignment.site.name: assignment for assignment in assignments}

    def __iter__(self) -> Iterator[Assignment]:
        return iter(list(self._by_name.values()))

    def __getitem__(self, site: str) -> Assignment:
        return self._by_name[site]

    def weight_format(self, linear: str) -> Format | None:
        """Return the format of the weight of the linear layer at this path."""
        return self._by_name[f"{linear}.weight"].format

    def input_format(self, linear: str) -> Format | None:
        """Return the format of the input of the linear layer at this path."""
        return self._by_name[f"{linear}.input"].format

    def set_format(self, site: str, format_: Format | None, reason: str) -> None:
        """Change the format of a site; reports show `reason`."""
        self._by_name[site] = replace(self._by_name[site], format=format_, reason=reason, quantizer=None)

    def set_quantizer(self, site: str, quantizer: Quantizer, reason: str) -> None:
        """Set the fitted quantizer of a site; it must be of the site's format."""
        self._by_name[site] = replace(self._by_name[site], quantizer=quantizer, reason=reason)
