"""The steps that methods are made of: one file each, which reads like its paper's algorithm."""

from protquant.quant.steps.base import (
    STEPS,
    Correction,
    Examples,
    LayerStep,
    LinkTransform,
    ModelTransform,
    Rounding,
    Step,
    Tuning,
    WeightFit,
    register_step,
    step_from_config,
)
from protquant.quant.steps.smoothquant import SmoothQuant

__all__ = [
    "STEPS",
    "Correction",
    "Examples",
    "LayerStep",
    "LinkTransform",
    "ModelTransform",
    "Rounding",
    "SmoothQuant",
    "Step",
    "Tuning",
    "WeightFit",
    "register_step",
    "step_from_config",
]
