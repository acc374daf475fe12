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

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from protquant.errors import ProtquantError, suggestion
from protquant.quant.assignments import Assignments
from protquant.quant.evidence import Evidence
from protquant.quant.formats import Codes, Format, StaticQuantizer
from protquant.quant.modules import QuantizedLinear
from protquant.quant.patterns import Pattern, matches_any
from protquant.quant.setting_types import make
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


@dataclass(frozen=True)
class Step(ABC):
    """A part of a method; `name` is what recipes call it."""

    name: ClassVar[str]
    one_range: ClassVar[bool] = False
    """Whether it counts on an activation having one range for proteins of all lengths."""

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain data, which `step_from_config` takes."""
        return {"step": self.name, **asdict(self)}


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

    layers: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        given: Any = self.layers  # from YAML a list, or one pattern
        patterns = (given,) if isinstance(given, str) else tuple(given)
        for pattern in patterns:
            Pattern(f"step {self.name}: layers", pattern)
        object.__setattr__(self, "layers", patterns)

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
        of several (`protquant.preparing.objectives`), and may be left out.
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


STEPS: dict[str, type[Step]] = {}

_StepType = TypeVar("_StepType", bound=type[Step])


def register_step(name: str) -> Callable[[_StepType], _StepType]:
    """Class decorator that makes a step known to recipes as `name`."""

    def register(cls: _StepType) -> _StepType:
        cls.name = name
        STEPS[name] = cls
        return cls

    return register


def step_from_config(config: object) -> Step:
    """Step of a config such as `{"step": "smoothquant", "alpha": 0.5}`.

    Raises
    ------
    ProtquantError
        For a name or a setting that is not known, or a value that a setting cannot have.
    """
    if isinstance(config, Step):
        return config
    if not isinstance(config, Mapping) or "step" not in config:
        raise ProtquantError(f"a step is a mapping with the key 'step', not {config!r}")
    name = str(config["step"])
    if name not in STEPS:
        raise ProtquantError(f"unknown step {name!r}; {suggestion(name, sorted(STEPS))}")
    settings = {str(key): value for key, value in config.items() if key != "step"}
    known = [field.name for field in fields(STEPS[name])]
    for key in settings:
        if key not in known:
            raise ProtquantError(f"step {name!r} has no setting {key!r}; {suggestion(key, known)}")
    return make(f"step {name!r}", STEPS[name], settings)
