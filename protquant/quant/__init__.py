"""Post-training quantization: calibrate a float model, choose a recipe, get a quantized one and a report."""

from protquant.quant.calibrate import ACTIVATION_KINDS, WEIGHT_KINDS, calibrate
from protquant.quant.formats import (
    BFloat16,
    Codes,
    Format,
    PiecewiseLinear,
    Quantizer,
    StaticQuantizer,
    Uniform,
    format_from_config,
    register_format,
)
from protquant.quant.modules import ActivationQuantizer, QuantizedLayerNorm, QuantizedLinear
from protquant.quant.observers import Moments, Observer, Statistics
from protquant.quant.quantize import plan, quantize
from protquant.quant.ranges import RANGE_RULES, Calibration, calibrated_range
from protquant.quant.recipe import Assignment, Recipe, available_recipes, load_recipe
from protquant.quant.report import Report, SiteReport

__all__ = [
    "ACTIVATION_KINDS",
    "RANGE_RULES",
    "WEIGHT_KINDS",
    "ActivationQuantizer",
    "Assignment",
    "BFloat16",
    "Calibration",
    "Codes",
    "Format",
    "Moments",
    "Observer",
    "PiecewiseLinear",
    "QuantizedLayerNorm",
    "QuantizedLinear",
    "Quantizer",
    "Recipe",
    "Report",
    "SiteReport",
    "StaticQuantizer",
    "Statistics",
    "Uniform",
    "available_recipes",
    "calibrate",
    "calibrated_range",
    "format_from_config",
    "load_recipe",
    "plan",
    "quantize",
    "register_format",
]
