"""Number formats; a new one is a file here, a decorator on it and a line in a recipe."""

from protquant.quant.formats.base import (
    FORMATS,
    Codes,
    Format,
    Quantizer,
    StaticQuantizer,
    format_from_config,
    register_format,
)
from protquant.quant.formats.bfloat16 import BFloat16, BFloat16Quantizer
from protquant.quant.formats.breakpoint import (
    closed_form_breakpoint,
    expected_error,
    optimal_breakpoint,
    search_ratio,
)
from protquant.quant.formats.piecewise import LivePiecewiseQuantizer, PiecewiseLinear
from protquant.quant.formats.tailed import TailedGrid, TailedQuantizer
from protquant.quant.formats.two_scale import TwoScaleQuantizer
from protquant.quant.formats.uniform import DynamicUniformQuantizer, Uniform, UniformQuantizer

__all__ = [
    "FORMATS",
    "BFloat16",
    "BFloat16Quantizer",
    "Codes",
    "DynamicUniformQuantizer",
    "Format",
    "LivePiecewiseQuantizer",
    "PiecewiseLinear",
    "Quantizer",
    "StaticQuantizer",
    "TailedGrid",
    "TailedQuantizer",
    "TwoScaleQuantizer",
    "Uniform",
    "UniformQuantizer",
    "closed_form_breakpoint",
    "expected_error",
    "format_from_config",
    "optimal_breakpoint",
    "register_format",
    "search_ratio",
]
