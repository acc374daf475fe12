"""Steps: the parts of a quantization method besides the formats of sites.

A step is a frozen dataclass whose fields are its settings; recipes name it, and the engine calls it. These are the
kinds of steps, in the order in which the engine calls them (within a kind the recipe gives the order):

================  ==========================================================================
`ModelTransform`  changes a whole model, but not its function: a rotation
`LinkTransform`   changes the layers that share a tensor, but not their function: a scale
`Tuning`          trains weights and ranges against the float model
`WeightFit`       chooses the grid of a weight: a clipped range
`Rounding`        chooses the codes of a weight on its grid: GPTQ
`Correction`      corrects a quantized layer: its bias
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
    """A part of a quantization method; `name` is its name in recipes."""

    key = "step"
    registry = STEPS
    one_range: ClassVar[bool] = False
    """Whether the step needs one range of each activation for proteins of all lengths."""


@dataclass(frozen=True)
class ModelTransform(Step):
    """Changes a whole float model in place, but not its function."""

    @abstractmethod
    def apply(self, model: nn.Module, assignments: Assignments) -> None:
        """Change `model` in place; the step may also change formats in `assignments`."""


@dataclass(frozen=True, kw_only=True)
class LayerStep(Step):
    """A step on single linear layers, or on layers that share an input.

    Attributes
    ----------
    layers : tuple of str
        Patterns of the paths of linear layers to change; layers that the recipe leaves in float stay unchanged.
    """

    layers: tuple[PatternText, ...] = ("*",)

    def is_for(self, path: str) -> bool:
        """Return whether a pattern in `layers` matches the linear layer at `path`."""
        return matches_any(path, self.layers)


@dataclass(frozen=True, kw_only=True)
class LinkTransform(LayerStep):
    """Changes the layers of one link in place, but not the function of the model."""

    @abstractmethod
    def apply(self, link: LinkLayers, evidence: Evidence, assignments: Assignments) -> None:
        """Change the layers of `link` by its methods.

        `evidence` has the statistics of their input. The step may also change formats in `assignments`.
        """


@dataclass(frozen=True)
class Examples:
    """Data for calibration and training.

    Attributes
    ----------
    sequences : tuple
        Inputs, one protein each.
    forward : callable
        Runs a model on one sequence.
    length : callable
        Returns the number of residues of a sequence, for recipes that calibrate by length.
    objective : callable
        Returns the loss, a scalar, between the output of a model and that of the float model on the same input. An
        optional third argument names a loss (`protquant.models.protocol`).
    checkpoint : Path or None
        File of the state of a tuning, to resume from.
    seed : int
        Seed of all random numbers of a tuning.
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
    """Trains weights and ranges of a float model, in place, to reduce the error of quantization."""

    @abstractmethod
    def tune(self, model: nn.Module, assignments: Assignments, examples: Examples) -> None:
        """Change the weights of `model`, and set the quantizers in `assignments` that were trained."""


@dataclass(frozen=True, kw_only=True)
class WeightFit(LayerStep):
    """Chooses the grid of a weight."""

    @abstractmethod
    def fit(self, weight: Float[Tensor, "o c"], format_: Format, evidence: Evidence) -> StaticQuantizer:
        """Return the quantizer of `weight`."""


@dataclass(frozen=True, kw_only=True)
class Rounding(LayerStep):
    """Chooses the codes of a weight."""

    @abstractmethod
    def round(self, weight: Float[Tensor, "o c"], quantizer: StaticQuantizer, evidence: Evidence) -> Codes:
        """Return codes of `weight` on the grid of `quantizer`."""


@dataclass(frozen=True, kw_only=True)
class Correction(LayerStep):
    """Corrects a quantized layer."""

    @abstractmethod
    def correct(self, layer: QuantizedLinear, weight: Float[Tensor, "o c"], evidence: Evidence) -> None:
        """Change `layer` in place; `weight` is its float weight."""


register_step = Step.register
step_from_config = Step.from_config
