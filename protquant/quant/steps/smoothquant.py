"""SmoothQuant (Xiao et al. 2023): scales move large activation channels partly into the weights."""

from dataclasses import dataclass

from torch import nn

from protquant.quant.assignments import Assignments
from protquant.quant.evidence import Evidence
from protquant.quant.settings import Share
from protquant.quant.steps.base import LinkTransform, register_step
from protquant.quant.transforms import LinkLayers

__all__ = ["SmoothQuant"]

_SMALLEST = 1e-5


@register_step("smoothquant")
@dataclass(frozen=True, kw_only=True)
class SmoothQuant(LinkTransform):
    """Divide channel j by s_j = max|x_j|^alpha / max|w_j|^(1 - alpha), and multiply the weights by it.

    Attributes
    ----------
    alpha : float
        Share of the scale differences that moves to the weights, in [0, 1].
    everywhere : bool
        Whether to change all layers; the paper changes only those that read a LayerNorm.
    """

    alpha: Share = 0.5
    everywhere: bool = False

    def apply(self, link: LinkLayers, evidence: Evidence, assignments: Assignments) -> None:  # noqa: ARG002
        if not (self.everywhere or isinstance(link.writer, nn.LayerNorm)):
            return
        activation = evidence.absolute_maximum.clamp(min=_SMALLEST)
        weight = link.absolute_weight_maximum().clamp(min=_SMALLEST)
        link.scale((activation**self.alpha / weight ** (1 - self.alpha)).clamp(min=_SMALLEST))
