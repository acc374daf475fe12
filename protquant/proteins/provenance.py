"""Provenance of a prediction: the program, the model, its quantization, and how it was computed."""

from dataclasses import dataclass, field
from importlib import metadata

__all__ = ["PROGRAM", "Provenance"]

PROGRAM = "protquant"


def _own_version() -> str:
    return metadata.version(PROGRAM)


@dataclass(frozen=True)
class Provenance:
    """Provenance of a prediction; an empty string means that a fact is not known.

    Attributes
    ----------
    version : str
        Version of protquant.
    model : str
        Name of the model, its folder or its file.
    fingerprint : str
        SHA-256 of the sizes and weights of the model as it was loaded.
    float_fingerprint : str
        For a quantized checkpoint, the fingerprint of its float model; otherwise equal to `fingerprint`.
    recipe, recipe_fingerprint : str
        Name of the recipe that quantized the model, and SHA-256 of its settings.
    execution : str
        `float`, `simulated` or `integer`.
    kernels : str
        Backend that computed the matrix products.
    dtype : str
        Floating-point type of the computation.
    """

    version: str = field(default_factory=_own_version)
    model: str = ""
    fingerprint: str = ""
    float_fingerprint: str = ""
    recipe: str = ""
    recipe_fingerprint: str = ""
    execution: str = ""
    kernels: str = ""
    dtype: str = ""

    def facts(self) -> dict[str, str]:
        """Return the known facts, by the labels that structure files use."""
        facts = {
            "program": f"{PROGRAM} {self.version}",
            "model": self.model,
            "model fingerprint": self.fingerprint,
            "float model fingerprint": self.float_fingerprint if self.float_fingerprint != self.fingerprint else "",
            "recipe": self.recipe,
            "recipe fingerprint": self.recipe_fingerprint,
            "execution": self.execution,
            "kernels": self.kernels,
            "number type": self.dtype,
        }
        return {name: value for name, value in facts.items() if value}
