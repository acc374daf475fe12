"""Steps of quantization methods: one file each, close to the algorithm of its paper."""

from protquant.quant.steps.aqas import AQAS
from protquant.quant.steps.awq import AWQ, AWQClip
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
from protquant.quant.steps.bias_correction import BiasCorrection
from protquant.quant.steps.flattenquant import FlattenQuant
from protquant.quant.steps.gptq import GPTQ
from protquant.quant.steps.low_rank_correction import LowRankCorrection
from protquant.quant.steps.mobilequant import MobileQuant
from protquant.quant.steps.qllm import ChannelReassembly
from protquant.quant.steps.rotation import RotateStreams
from protquant.quant.steps.smoothquant import SmoothQuant

__all__ = [
    "AQAS",
    "AWQ",
    "GPTQ",
    "STEPS",
    "AWQClip",
    "BiasCorrection",
    "ChannelReassembly",
    "Correction",
    "Examples",
    "FlattenQuant",
    "LayerStep",
    "LinkTransform",
    "LowRankCorrection",
    "MobileQuant",
    "ModelTransform",
    "RotateStreams",
    "Rounding",
    "SmoothQuant",
    "Step",
    "Tuning",
    "WeightFit",
    "register_step",
    "step_from_config",
]
