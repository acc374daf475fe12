from protquant.quant.assignments import Assignment, Assignments
from protquant.quant.cache import MemoryCache, StatisticsCache, calibrate_once, calibration_key, model_hash
from protquant.quant.calibrate import calibrate, count_activations
from protquant.quant.evidence import Evidence
from protquant.quant.formats import (
    FORMATS,
    BFloat16,
    Codes,
    DInt,
    Float8,
    Format,
    PiecewiseLinear,
    Quantizer,
    StaticQuantizer,
    TokenOutlier,
    Uniform,
    format_from_config,
    register_format,
)
from protquant.quant.modules import ActivationQuantizer, QuantizedLayerNorm, QuantizedLinear
from protquant.quant.observers import Moments, Observer, Statistics
from protquant.quant.quantize import needs_sequences, needs_statistics, plan, quantize
from protquant.quant.ranges import RANGE_RULES, Calibration, calibrated_range
from protquant.quant.recipe import EXECUTIONS, Recipe, check_execution, load_recipe, recipe_schema
from protquant.quant.report import Report, SiteReport
from protquant.quant.shipped_recipes import available_recipes
from protquant.quant.steps import (
    STEPS,
    Correction,
    Examples,
    LinkTransform,
    ModelTransform,
    Rounding,
    Step,
    Tuning,
    WeightFit,
    register_step,
)
from protquant.quant.stream import needs_whole_model, quantize_stream
from protquant.quant.transforms import InputTransform, LinkLayers, TransformedLinear
from protquant.sites import ACTIVATION_KINDS, WEIGHT_KINDS

__all__ = [
    "ACTIVATION_KINDS",
    "EXECUTIONS",
    "FORMATS",
    "RANGE_RULES",
    "STEPS",
    "WEIGHT_KINDS",
    "ActivationQuantizer",
    "Assignment",
    "Assignments",
    "BFloat16",
    "Calibration",
    "Codes",
    "Correction",
    "DInt",
    "Evidence",
    "Examples",
    "Float8",
    "Format",
    "InputTransform",
    "LinkLayers",
    "LinkTransform",
    "MemoryCache",
    "ModelTransform",
    "Moments",
    "Observer",
    "PiecewiseLinear",
    "QuantizedLayerNorm",
    "QuantizedLinear",
    "Quantizer",
    "Recipe",
    "Report",
    "Rounding",
    "SiteReport",
    "StaticQuantizer",
    "Statistics",
    "StatisticsCache",
    "Step",
    "TokenOutlier",
    "TransformedLinear",
    "Tuning",
    "Uniform",
    "WeightFit",
    "available_recipes",
    "calibrate",
    "calibrate_once",
    "calibrated_range",
    "calibration_key",
    "check_execution",
    "count_activations",
    "format_from_config",
    "load_recipe",
    "model_hash",
    "needs_sequences",
    "needs_statistics",
    "needs_whole_model",
    "plan",
    "quantize",
    "quantize_stream",
    "recipe_schema",
    "register_format",
    "register_step",
]
