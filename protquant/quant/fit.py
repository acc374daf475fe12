"""Formats fitted to the sites of a model, and the report on each."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protquant.quant.assignments import Assignment
from protquant.quant.formats import Format, Quantizer, StaticQuantizer
from protquant.quant.observers import Statistics
from protquant.quant.ranges import Calibration
from protquant.quant.report import SiteReport

__all__ = ["ActivationFitter", "tensor_bytes", "weight_report"]


def tensor_bytes(tensor: Tensor | None) -> int:
    """Bytes of a tensor; 0 if there is none."""
    return 0 if tensor is None else tensor.numel() * tensor.element_size()


def weight_report(
    assignment: Assignment, weight: Tensor, quantizer: StaticQuantizer | None, decoded: Tensor, elements: int
) -> SiteReport:
    """Report on a weight that became `decoded`; `elements` is what the model had before any step added to them."""
    site, form = assignment.site, assignment.format
    if quantizer is None or form is None:
        bits = 8 * weight.element_size()
        nbytes = tensor_bytes(weight)
        return SiteReport(
            site.name,
            site.kind,
            "float",
            assignment.reason,
            bits,
            8 * nbytes / elements,
            elements=elements,
            bytes=nbytes,
            excluded=assignment.excluded,
        )
    nbytes = math.ceil(quantizer.code_bits * weight.numel() / 8) + math.ceil(quantizer.scale_bits() / 8)
    return SiteReport(
        site.name,
        site.kind,
        form.label,
        assignment.reason,
        bits=quantizer.code_bits,
        effective_bits=8 * nbytes / elements,
        elements=elements,
        bytes=nbytes,
        snr_db=_snr_db([weight], [decoded]),
        clipped=_clipped([weight], quantizer),
    )


class ActivationFitter:
    """Fits formats to statistics, once where sites share both: what a query, a key and a value projection read."""

    def __init__(self, model: nn.Module, calibration: Calibration) -> None:
        self.calibration = calibration
        self.parameter = next(model.parameters(), torch.empty(0))
        self._known: dict[tuple[int, Format], Quantizer] = {}

    def __call__(self, assignment: Assignment, statistics: Statistics | None) -> tuple[Quantizer | None, SiteReport]:
        site, form = assignment.site, assignment.format
        count = None if statistics is None else statistics.count
        if form is None:
            bits = 8 * self.parameter.element_size()
            return None, SiteReport(
                site.name,
                site.kind,
                "float",
                assignment.reason,
                bits,
                bits,
                elements=count,
                excluded=assignment.excluded,
            )
        quantizer = assignment.quantizer or self._fit(form, statistics)
        effective: float = quantizer.code_bits
        snr = snr_after_norm = clipped = None
        if statistics is not None:
            # Rows, not the sample of values: a scale per token and a LayerNorm need whole vectors.
            rows = [row[None] for row in statistics.rows]
            decoded = [quantizer(row) for row in rows]
            snr, clipped = _snr_db(rows, decoded), _clipped(rows, quantizer)
            if site.kind == "norm_input":
                snr_after_norm = _snr_db(*([F.layer_norm(x, x.shape[-1:]) for x in xs] for xs in (rows, decoded)))
            effective += sum(quantizer.dynamic_bits(tuple(x.shape)) for x in rows) / sum(x.numel() for x in rows)
        return quantizer.to(self.parameter.device), SiteReport(
            site.name,
            site.kind,
            form.label,
            assignment.reason,
            bits=quantizer.code_bits,
            effective_bits=effective,
            elements=count,
            snr_db=snr,
            snr_after_norm_db=snr_after_norm,
            clipped=clipped,
        )

    def _fit(self, form: Format, statistics: Statistics | None) -> Quantizer:
        if statistics is None:
            return form.for_activation(None, self.calibration)
        key = (id(statistics), form)
        if key not in self._known:
            self._known[key] = form.for_activation(statistics, self.calibration)
        # A copy, so that no two sites share buffers.
        return copy.deepcopy(self._known[key])


def _snr_db(xs: list[Tensor], decoded: list[Tensor]) -> float:
    """Signal to noise ratio, infinite where nothing is lost."""
    signal = sum(x.double().square().sum().item() for x in xs)
    noise = sum((x.double() - y.double()).square().sum().item() for x, y in zip(xs, decoded, strict=True))
    return math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal else -math.inf


def _clipped(xs: list[Tensor], quantizer: Quantizer) -> float:
    outside = total = 0
    for x in xs:
        bounds = quantizer.freeze(x).bounds()
        total += x.numel()
        if bounds is not None:
            # Rounding of the bounds themselves is no clipping.
            low, high = (end + 1e-6 * end.abs() * side for end, side in zip(bounds, (-1, 1), strict=True))
            outside += int(((x < low) | (x > high)).sum())
    return outside / total if total else 0.0
