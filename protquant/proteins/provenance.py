"""What made a prediction: the program, the model, what was done to it, and what it computed with."""

from dataclasses import dataclass, field
from importlib import metadata

__all__ = ["PROGRAM", "Provenance"]

PROGRAM = "protquant"


def _own_version() -> str:
    return metadata.version(PROGRAM)


@dataclass(frozen=True)
class Provenance:
    """What made a prediction; an empty text is a fact that is not known.

    Attributes
    ----------
    version : str
        Of protquant.
    model : str
        Name of the model, or of its folder or file.
    fingerprint : str
        SHA-256 of the sizes and weights of the model as it was loaded.
    float_fingerprint : str
        The same of the float model that a quantized checkpoint was made from; equal to `fingerprint` for others.
    recipe, recipe_fingerprint : str
        Name of the recipe that quantized the model, and SHA-256 of its settings.
    execution : str
        `float`, `simulated` or `integer`.
    kernels : str
        What multiplied.
    dtype : str
        Floating-point type.
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
        """The facts that are known, by the words that structure files have for them."""
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
