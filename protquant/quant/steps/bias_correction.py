"""Bias correction (Nagel et al. 2019): the mean of every output stays that of the float model."""

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
    """Add E[W x - W' Q(x)], the mean output error over calibration, to the bias.

    A layer without a bias gets one.
    """

    one_range = True  # the shift of the mean of an input depends on its range

    @torch.no_grad()
    def correct(self, layer: QuantizedLinear, weight: Float[Tensor, "o c"], evidence: Evidence) -> None:
        mean = evidence.mean.to(weight)
        quantized_mean = mean
        if layer.input_quantizer is not None:
            # The mean is over all vectors; its shift by quantization is estimated on the sample.
            rows = evidence.rows.to(weight)
            quantized_mean = mean + (layer.input_quantizer(rows) - rows).mean(0)
        shift = weight @ mean - layer.float_weight() @ quantized_mean
        bias = shift if layer.bias is None else layer.bias + shift
        layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
