"""What quantization did to every site of a model, the untouched ones included."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from protquant.quant.recipe import Recipe
from protquant.sites import WEIGHT_KINDS, Kind

__all__ = ["Report", "SiteReport"]


@dataclass(frozen=True)
class SiteReport:
    """One site.

    Attributes
    ----------
    format : str
        Label of the format, `float` where the site was left alone.
    reason : str
        What in the recipe decided it.
    bits : int
        Width of a code, or of the float.
    effective_bits : float
        Bits per element with the scales that belong to the tensor; frozen scales of activations, which serve every
        input alike, count for nothing.
    elements : int or None
        Of a weight, or those that calibration saw of an activation; None where that is not known.
    bytes : int or None
        Of a weight: packed codes, scales, zero points.
    snr_db : float or None
        Signal to noise of the weight, or of the calibration sample, in dB; infinite where nothing was lost.
    snr_after_norm_db : float or None
        Of inputs of LayerNorm: the same after normalizing, which is what the model is given.
    clipped : float or None
        Share of values outside the grid.
    excluded : bool
        Whether the recipe excludes the site, as it does heads.
    macs : int or None
        Of the weight of a linear layer: multiply-accumulates over all that calibration saw, with the channels that
        steps have added; None where that is not known.
    """

    site: str
    kind: Kind
    format: str
    reason: str
    bits: int
    effective_bits: float
    elements: int | None = None
    bytes: int | None = None
    snr_db: float | None = None
    snr_after_norm_db: float | None = None
    clipped: float | None = None
    excluded: bool = False
    macs: int | None = None


@dataclass(frozen=True)
class Report:
    """All sites of a model in its order, and what they come to.

    Attributes
    ----------
    weight_bytes, float_weight_bytes : int
        Of all parameters, after and before: embeddings, biases and heads, which stay in float, included.
    """

    recipe: Recipe
    sites: Sequence[SiteReport]
    weight_bytes: int
    float_weight_bytes: int

    @property
    def weight_bits(self) -> float | None:
        """Effective bits of an element of the weights and gains that are sites and not excluded."""
        return _weighted([site for site in self.sites if site.kind in WEIGHT_KINDS and not site.excluded])

    @property
    def activation_bits(self) -> float | None:
        """Effective bits of an activation, each site that is not excluded counted by what calibration saw of it.

        None where there was no calibration, and sites differ.
        """
        return _weighted([site for site in self.sites if site.kind not in WEIGHT_KINDS and not site.excluded])

    def compute_share(self, bits: int) -> float | None:
        """Share of the multiply-accumulates of linear layers whose operands both have at most so many bits.

        Layers that are excluded do not count. None where there was no calibration to count what layers read.
        """
        compute = self._compute()
        if compute is None:
            return None
        return sum(macs for width, macs in compute.items() if width <= bits) / max(sum(compute.values()), 1)

    def _compute(self) -> dict[int, int] | None:
        """Multiply-accumulates by the bits of the wider operand; None where they are not known."""
        inputs = {site.site.removesuffix(".input"): site for site in self.sites if site.kind == "linear_input"}
        weights = [site for site in self.sites if site.kind == "linear_weight" and not site.excluded]
        if not weights or any(site.macs is None for site in weights):
            return None
        compute: dict[int, int] = {}
        for site in weights:
            width = max(site.bits, inputs[site.site.removesuffix(".weight")].bits)
            compute[width] = compute.get(width, 0) + (site.macs or 0)
        return compute

    def to_frame(self) -> pd.DataFrame:
        """One row per site, columns as the fields of `SiteReport`."""
        return pd.DataFrame([asdict(site) for site in self.sites])

    def __str__(self) -> str:
        quantized = sum(site.format != "float" for site in self.sites)
        weight, activation = (
            "unknown" if bits is None else f"{bits:.2f}" for bits in (self.weight_bits, self.activation_bits)
        )
        compute = self._compute() or {}
        total = max(sum(compute.values()), 1)
        shares = ", ".join(f"{macs / total:.1%} in {width}" for width, macs in sorted(compute.items()))
        return (
            f"{self.recipe.name}: {quantized} of {len(self.sites)} sites quantized, effective bits of weights {weight} "
            f"and of activations {activation}, {self.weight_bytes / 1e6:.2f} MB of weights "
            f"(float: {self.float_weight_bytes / 1e6:.2f} MB)"
            + (f"; compute of linear layers {shares} bits" if len(compute) > 1 else "")
        )


def _weighted(sites: Sequence[SiteReport]) -> float | None:
    if not sites:
        return None
    if len({site.effective_bits for site in sites}) == 1:
        return sites[0].effective_bits
    total = sum(site.elements or 0 for site in sites)
    return sum(site.effective_bits * (site.elements or 0) for site in sites) / total if total else None
