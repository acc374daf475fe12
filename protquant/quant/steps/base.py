"""Steps: what a method does beside giving sites their formats. A method is a list of them, and a list is data.

A step is a frozen dataclass whose fields are its settings; recipes name it, and the engine calls it. The kinds, in the
order in which they are called (within a kind in that of the recipe):

================  ==========================================================================
`ModelTransform`  changes a whole model, but not its function: a rotation
`LinkTransform`   changes the layers that share a tensor, but not their function: a scale
`Tuning`          trains weights and ranges against the float model
`WeightFit`       chooses the grid of a weight: a clipped range
`Rounding`        chooses the codes of a weight on its grid: GPTQ
`Correction`      mends a layer that is quantized: its bias
================  ==========================================================================
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from protquant.quant.assignments import Assignments
from protquant.quant.evidence import Evidence
from protquant.quant.formats import Codes, Format, StaticQuantizer
from protquant.quant.modules import QuantizedLinear
from protquant.quant.patterns import PatternText, matches_any
from protquant.quant.settings import Named
from protquant.quant.transforms import LinkLayers

__all__ = [
    "STEPS",
    "Correction",
    "Examples",
    "LayerStep",
    "LinkTransform",
    "ModelTransform",
    "Rounding",
    "Step",
    "Tuning",
    "WeightFit",
    "register_step",
    "step_from_config",
]


STEPS: dict[str, "type[Step]"] = {}


@dataclass(frozen=True)
class Step(Named):
    """A part of a method; `name` is what recipes call it."""

    key = "step"
    registry = STEPS
    one_range: ClassVar[bool] = False
    """Whether it counts on an activation having one range for proteins of all lengths."""


@dataclass(frozen=True)
class ModelTransform(Step):
    """Changes a whole float model in place, but not its function."""

    @abstractmethod
    def apply(self, model: nn.Module, assignments: Assignments) -> None:
        """Change `model`; formats may be changed too."""


@dataclass(frozen=True, kw_only=True)
class LayerStep(Step):
    """A step on linear layers one by one, or on those that share an input.

    Attributes
    ----------
    layers : tuple of str
        Patterns of the paths of linear layers that it is for; those that the recipe leaves in float are left alone.
    """

    layers: tuple[PatternText, ...] = ("*",)

    def is_for(self, path: str) -> bool:
        """Whether the linear layer at `path` is one of `layers`."""
        return matches_any(path, self.layers)


@dataclass(frozen=True, kw_only=True)
class LinkTransform(LayerStep):
    """Changes the layers of one link in place, but not the function of the model."""

    @abstractmethod
    def apply(self, link: LinkLayers, evidence: Evidence, assignments: Assignments) -> None:
        """Change the layers of `link` by its methods; `evidence` is of what they read. Formats may be changed too."""


@dataclass(frozen=True)
class Examples:
    """What tunings train on.

    Attributes
    ----------
    sequences : tuple
        Inputs, one protein each.
    forward : callable
        Runs a model on one of them.
    length : callable
        Residues of one of them, for recipes that calibrate by length.
    objective : callable
        The loss, a scalar, of a model's output against the float model's on the same input; a third argument names one
        of several (`protquant.models.protocol`), and may be left out.
    checkpoint : Path or None
        File that a tuning writes its state to and goes on from.
    seed : int
        Of all that a tuning draws at random.
    progress : bool
        Whether to draw a progress bar on standard error.
    """

    sequences: tuple[Any, ...]
    forward: Callable[[nn.Module, Any], Any]
    objective: Callable[..., Tensor] | None = None
    checkpoint: Path | None = None
    seed: int = 0
    progress: bool = False
    length: Callable[[Any], int] = len


@dataclass(frozen=True)
class Tuning(Step):
    """Trains weights and ranges of a float model, in place, so that it survives quantization better."""

    @abstractmethod
    def tune(self, model: nn.Module, assignments: Assignments, examples: Examples) -> None:
        """Change the weights of `model`, and set quantizers of `assignments` where they are part of the training."""


@dataclass(frozen=True, kw_only=True)
class WeightFit(LayerStep):
    """Chooses the grid of a weight."""

    @abstractmethod
    def fit(self, weight: Float[Tensor, "o c"], form: Format, evidence: Evidence) -> StaticQuantizer:
        """Return the quantizer of `weight`."""


@dataclass(frozen=True, kw_only=True)
class Rounding(LayerStep):
    """Chooses the codes of a weight."""

    @abstractmethod
    def round(self, weight: Float[Tensor, "o c"], quantizer: StaticQuantizer, evidence: Evidence) -> Codes:
        """Return codes of the weight on the grid of `quantizer`."""


@dataclass(frozen=True, kw_only=True)
class Correction(LayerStep):
    """Mends a quantized layer."""

    @abstractmethod
    def correct(self, layer: QuantizedLinear, weight: Float[Tensor, "o c"], evidence: Evidence) -> None:
        """Change `layer` in place; `weight` is what it was in float."""


register_step = Step.register
step_from_config = Step.from_config
