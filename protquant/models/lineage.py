"""What was done to the weights of a model since they were trained, and what computes with them."""

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

__all__ = ["Lineage", "add_to_lineage"]


@dataclass(frozen=True)
class Lineage:
    """A record that a model carries from loading to prediction.

    Attributes
    ----------
    float_fingerprint : str
        Fingerprint of the float model as a whole; the language model of a folding model has that of the latter.
    recipe : str
        Name of the recipe that quantized the model.
    recipe_fingerprint : str
        SHA-256 of all settings of the recipe: two recipes may have one name. Empty where none was applied.
    execution : str
        `float`, `simulated` (quantized and dequantized in float) or `integer`.
    kernels : str
        What multiplies, and how many parts of an integer model are simulated.
    """

    float_fingerprint: str = ""
    recipe: str = "fp32"
    recipe_fingerprint: str = ""
    execution: str = "float"
    kernels: str = "torch"


def add_to_lineage(model: nn.Module, **facts: Any) -> None:
    """Change facts of the record of a model, and of the language model in it; other modules carry none."""
    for part in (model, getattr(model, "lm", None)):
        known = getattr(part, "lineage", None)
        if isinstance(known, Lineage):
            part.lineage = replace(known, **facts)  # type: ignore[union-attr]  # None has no lineage
