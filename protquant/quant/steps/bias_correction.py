"""Bias correction (Nagel et al. 2019): the mean of every output stays what it was."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from protquant.quant.evidence import Evidence
from protquant.quant.modules import QuantizedLinear
from protquant.quant.steps.base import Correction, register_step

__all__ = ["BiasCorrection"]


@register_step("bias_correction")
@dataclass(frozen=True, kw_only=True)
class BiasCorrection(Correction):
    """Add to the bias E[W x - W' Q(x)], the mean over calibration of what quantization takes away.

    A layer without a bias is given one.
    """

    one_range = True  # what quantization moves the mean of an input by is that of one range

    @torch.no_grad()
    def correct(self, layer: QuantizedLinear, weight: Float[Tensor, "o c"], evidence: Evidence) -> None:
        mean = evidence.mean.to(weight)
        quantized_mean = mean
        if layer.input_quantizer is not None:
            # The mean is of all vectors; what quantization moves it by is known of the sample.
            rows = evidence.rows.to(weight)
            quantized_mean = mean + (layer.input_quantizer(rows) - rows).mean(0)
        shift = weight @ mean - layer.float_weight() @ quantized_mean
        bias = shift if layer.bias is None else layer.bias + shift
        layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
