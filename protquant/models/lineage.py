"""Record of a model's float weights, recipe and execution."""

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

__all__ = ["Lineage", "add_to_lineage"]


@dataclass(frozen=True)
class Lineage:
    """Record that a model carries from loading to prediction.

    Attributes
    ----------
    float_fingerprint : str
        Fingerprint of the whole float model; the language model of a folding model has that of the folding model.
    recipe : str
        Name of the recipe that quantized the model.
    recipe_fingerprint : str
        SHA-256 of all settings of the recipe, as recipes may share a name; empty without a recipe.
    execution : str
        `float`, `simulated` (quantized and dequantized in float) or `integer`.
    kernels : str
        Backend, and the number of simulated parts of an integer model.
    """

    float_fingerprint: str = ""
    recipe: str = "fp32"
    recipe_fingerprint: str = ""
    execution: str = "float"
    kernels: str = "torch"


def add_to_lineage(model: nn.Module, **facts: Any) -> None:
    """Change fields of the record of a model and of its language model; other modules have no record."""
    for part in (model, getattr(model, "lm", None)):
        known = getattr(part, "lineage", None)
        if isinstance(known, Lineage):
            part.lineage = replace(known, **facts)  # type: ignore[union-attr]  # None has no lineage
