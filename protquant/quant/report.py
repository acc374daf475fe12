"""Report of a quantization: bits, bytes and errors of every site of a model, float sites included."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from protquant.quant.recipe import Recipe
from protquant.sites import WEIGHT_KINDS, Kind

__all__ = ["Report", "SiteReport"]


@dataclass(frozen=True)
class SiteReport:
    """Report on one site.

    Attributes
    ----------
    format : str
        Label of the format; `float` if the site was not quantized.
    reason : str
        The entry of the recipe that decided the format.
    bits : int
        Width of a code, or of a float.
    effective_bits : float
        Bits per element, scales of the tensor included. Frozen scales of activations are not counted: all inputs share
        them.
    elements : int or None
        Number of elements of the weight, or of the activation during calibration; None if unknown.
    bytes : int or None
        Bytes of a weight: packed codes, scales and zero points. None for activations.
    snr_db : float or None
        Signal-to-noise ratio of the weight, or of the calibration sample, in dB; infinite if the values are exact.
    snr_after_norm_db : float or None
        For inputs of LayerNorm: the same ratio after normalization. None for other sites.
    clipped : float or None
        Share of values outside of the grid.
    excluded : bool
        Whether the recipe excludes the site. By default recipes exclude heads.
    macs : int or None
        For the weight of a linear layer: number of multiply-accumulates during calibration, with the channels that
        steps have added; None if unknown.
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
    """Reports on all sites of a model, in its order, and their totals.

    Attributes
    ----------
    weight_bytes, float_weight_bytes : int
        Bytes of all parameters after and before quantization, including embeddings, biases and heads, which stay float.
    """

    recipe: Recipe
    sites: Sequence[SiteReport]
    weight_bytes: int
    float_weight_bytes: int

    @property
    def weight_bits(self) -> float | None:
        """Mean effective bits of an element of the weights and gains that are not excluded."""
        return _weighted([site for site in self.sites if site.kind in WEIGHT_KINDS and not site.excluded])

    @property
    def activation_bits(self) -> float | None:
        """Mean effective bits of an activation. Each site that is not excluded is weighted by its elements.

        None if there was no calibration and sites differ.
        """
        return _weighted([site for site in self.sites if site.kind not in WEIGHT_KINDS and not site.excluded])

    def compute_share(self, bits: int) -> float | None:
        """Return the share of multiply-accumulates in linear layers whose operands both have at most `bits` bits.

        Excluded layers are not counted. None if there was no calibration.
        """
        compute = self._compute()
        if compute is None:
            return None
        return sum(macs for width, macs in compute.items() if width <= bits) / max(sum(compute.values()), 1)

    def _compute(self) -> dict[int, int] | None:
        """Return the multiply-accumulates by the bits of the wider operand; None if they are unknown."""
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
        """Return a table with one row per site, whose columns are the fields of `SiteReport`."""
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
