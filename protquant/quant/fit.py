"""Formats fitted to the sites of a model, and the report on each."""

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protquant.quant.assignments import Assignment
from protquant.quant.formats import Codes, Format, LengthBinnedQuantizer, Quantizer, StaticQuantizer
from protquant.quant.lengths import BinnedStatistics
from protquant.quant.observers import Statistics
from protquant.quant.ranges import Calibration
from protquant.quant.report import SiteReport
from protquant.quant.rotations import RotatedNorm

__all__ = ["ActivationFitter", "coded_bytes", "tensor_bytes", "weight_report"]

_PART, _ROW = 2**20, 256


def tensor_bytes(tensor: Tensor | None) -> int:
    """Bytes of a tensor; 0 if there is none."""
    return 0 if tensor is None else tensor.numel() * tensor.element_size()


def coded_bytes(quantizer: StaticQuantizer, elements: int) -> int:
    """Bytes of a weight of so many elements: packed codes, scales, zero points."""
    return math.ceil(quantizer.code_bits * elements / 8) + math.ceil(quantizer.scale_bits() / 8)


def weight_report(
    assignment: Assignment, weight: Tensor, quantizer: StaticQuantizer | None, codes: Codes | None, elements: int
) -> SiteReport:
    """Report on a weight that was rounded to `codes`; it had so many `elements` before any step added to them."""
    site, form = assignment.site, assignment.format
    if quantizer is None or form is None or codes is None:
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
    nbytes = coded_bytes(quantizer, weight.numel())
    return SiteReport(
        site.name,
        site.kind,
        form.label,
        assignment.reason,
        bits=quantizer.code_bits,
        effective_bits=8 * nbytes / elements,
        elements=elements,
        bytes=nbytes,
        snr_db=_snr_db([weight], [quantizer.decode(codes)]),
        clipped=_clipped([(weight, quantizer)]),
    )


class ActivationFitter:
    """Fits formats to statistics, once where sites share both: what a query, a key and a value projection read."""

    def __init__(self, model: nn.Module, calibration: Calibration) -> None:
        self.calibration = calibration
        self.model = model
        # Not a parameter without data, which only stands for one that is loaded when it is needed.
        self.parameter = next((p for p in model.parameters() if not p.is_meta), torch.empty(0))
        self._known: dict[tuple[int, Format], Quantizer] = {}

    def __call__(
        self, assignment: Assignment, statistics: Statistics | BinnedStatistics | None
    ) -> tuple[Quantizer | None, SiteReport]:
        site, form = assignment.site, assignment.format
        parts = statistics.parts if isinstance(statistics, BinnedStatistics) else (statistics,)
        seen = [part for part in parts if part is not None]
        count = sum(part.count for part in seen) if seen else None
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
        fitted = [assignment.quantizer or self._fit(form, part) for part in parts]
        quantizer, label = fitted[0], form.label
        if isinstance(statistics, BinnedStatistics) and form.needs_statistics and assignment.quantizer is None:
            quantizer = LengthBinnedQuantizer(statistics.bins, fitted)
            label += f" by length {quantizer.label}"
        effective: float = quantizer.code_bits
        snr = snr_after_norm = clipped = None
        widths = [part.width for part in seen if part.width]
        if widths:
            effective += quantizer.dynamic_bits((1, widths[0])) / widths[0]
        elif seen:
            # Rows, not the sample of values: a scale per token and a LayerNorm need whole vectors.
            met = [(row[None], each) for part, each in zip(seen, fitted, strict=True) for row in part.rows]
            rows = [row for row, _ in met]
            decoded = [each(row) for row, each in met]
            snr, clipped = _snr_db(rows, decoded), _clipped(met)
            if site.kind == "norm_input":
                snr_after_norm = _snr_db(*([self._normalize(site.module, x) for x in xs] for xs in (rows, decoded)))
            effective += sum(each.dynamic_bits(tuple(x.shape)) for x, each in met) / sum(x.numel() for x in rows)
        return quantizer.to(self.parameter.device), SiteReport(
            site.name,
            site.kind,
            label,
            assignment.reason,
            bits=quantizer.code_bits,
            effective_bits=effective,
            elements=count,
            snr_db=snr,
            snr_after_norm_db=snr_after_norm,
            clipped=clipped,
        )

    def _normalize(self, path: str, x: Tensor) -> Tensor:
        norm = self.model.get_submodule(path)
        return norm(x) if isinstance(norm, RotatedNorm) else F.layer_norm(x, x.shape[-1:])

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
    signal = sum(_squares(x) for x in xs)
    noise = sum(_squares(x, y) for x, y in zip(xs, decoded, strict=True))
    return math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal else -math.inf


def _squares(x: Tensor, y: Tensor | None = None) -> float:
    """Sum of the squares of `x`, or of `x - y`: of rows of 256 values in their type, and of all rows in float64."""
    total = 0.0
    values, others = x.reshape(-1), None if y is None else y.reshape(-1)
    for first in range(0, len(values), _PART):
        some = values[first : first + _PART].float()
        if others is not None:
            some = some - others[first : first + _PART]
        whole = len(some) // _ROW * _ROW
        rows, rest = some[:whole].view(-1, _ROW), some[whole:]
        total += float(rows.square().sum(1).sum(dtype=torch.float64)) + float(rest.double().square().sum())
    return total


def _clipped(met: Sequence[tuple[Tensor, Quantizer]]) -> float:
    """Share of values outside the grid of the quantizer that they meet."""
    outside = total = 0
    for x, quantizer in met:
        bounds = quantizer.freeze(x).bounds()
        total += x.numel()
        if bounds is not None and x.numel():
            # Rounding of the bounds themselves is no clipping.
            low, high = (end + 1e-6 * end.abs() * side for end, side in zip(bounds, (-1, 1), strict=True))
            outside += _outside(x, low, high)
    return outside / total if total else 0.0


def _outside(x: Tensor, low: Tensor, high: Tensor) -> int:
    """Number of values of `x` that are less than `low` or more than `high`."""
    if all(bound.ndim == 0 or bound.shape[-1] == 1 for bound in (low, high)):
        # Most weights have none: their extremes, row by row, say so in one pass.
        least, most = x.aminmax(dim=-1, keepdim=True)
        if not ((least < low) | (most > high)).any():
            return 0
    return int(((x < low) | (x > high)).sum())
