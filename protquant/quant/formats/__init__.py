"""Number formats. A new format is one file here with a registered class."""

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
from protquant.quant.formats.dint import DInt, DIntQuantizer
from protquant.quant.formats.float8 import DynamicFloat8Quantizer, Float8, Float8Quantizer
from protquant.quant.formats.length_binned import LengthBinnedQuantizer
from protquant.quant.formats.piecewise import LivePiecewiseQuantizer, PiecewiseLinear
from protquant.quant.formats.tailed import TailedGrid, TailedQuantizer
from protquant.quant.formats.token_outlier import (
    FrozenTokenOutlierQuantizer,
    TokenOutlier,
    TokenOutlierQuantizer,
)
from protquant.quant.formats.two_scale import TwoScaleQuantizer
from protquant.quant.formats.uniform import DynamicUniformQuantizer, Uniform, UniformQuantizer

__all__ = [
    "FORMATS",
    "BFloat16",
    "BFloat16Quantizer",
    "Codes",
    "DInt",
    "DIntQuantizer",
    "DynamicFloat8Quantizer",
    "DynamicUniformQuantizer",
    "Float8",
    "Float8Quantizer",
    "Format",
    "FrozenTokenOutlierQuantizer",
    "LengthBinnedQuantizer",
    "LivePiecewiseQuantizer",
    "PiecewiseLinear",
    "Quantizer",
    "StaticQuantizer",
    "TailedGrid",
    "TailedQuantizer",
    "TokenOutlier",
    "TokenOutlierQuantizer",
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
