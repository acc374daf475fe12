"""Fit formats to the sites of a model, and report on each site."""

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
    """Return the bytes of a tensor; 0 for None."""
    return 0 if tensor is None else tensor.numel() * tensor.element_size()


def coded_bytes(quantizer: StaticQuantizer, elements: int) -> int:
    """Return the bytes of a quantized weight with `elements` elements: packed codes, scales and zero points."""
    return math.ceil(quantizer.code_bits * elements / 8) + math.ceil(quantizer.scale_bits() / 8)


def weight_report(
    assignment: Assignment, weight: Tensor, quantizer: StaticQuantizer | None, codes: Codes | None, elements: int
) -> SiteReport:
    """Return the report on a weight that was rounded to `codes`; `elements` is its size before steps added channels."""
    site, format_ = assignment.site, assignment.format
    if quantizer is None or format_ is None or codes is None:
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
        format_.label,
        assignment.reason,
        bits=quantizer.code_bits,
        effective_bits=8 * nbytes / elements,
        elements=elements,
        bytes=nbytes,
        snr_db=_snr_db([weight], [quantizer.decode(codes)]),
        clipped=_clipped([(weight, quantizer)]),
    )


class ActivationFitter:
    """Fits formats to statistics, once for sites that share both, such as the inputs of query and key projections."""

    def __init__(self, model: nn.Module, calibration: Calibration) -> None:
        self.calibration = calibration
        self.model = model
        # A parameter with data: those on the meta device are loaded later.
        self.parameter = next((p for p in model.parameters() if not p.is_meta), torch.empty(0))
        self._known: dict[tuple[int, Format], Quantizer] = {}

    def __call__(
        self, assignment: Assignment, statistics: Statistics | BinnedStatistics | None
    ) -> tuple[Quantizer | None, SiteReport]:
        site, format_ = assignment.site, assignment.format
        parts = statistics.parts if isinstance(statistics, BinnedStatistics) else (statistics,)
        seen = [part for part in parts if part is not None]
        count = sum(part.count for part in seen) if seen else None
        if format_ is None:
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
        fitted = [assignment.quantizer or self._fit(format_, part) for part in parts]
        quantizer, label = fitted[0], format_.label
        if isinstance(statistics, BinnedStatistics) and format_.needs_statistics and assignment.quantizer is None:
            quantizer = LengthBinnedQuantizer(statistics.bins, fitted)
            label += f" by length {quantizer.label}"
        effective: float = quantizer.code_bits
        snr = snr_after_norm = clipped = None
        widths = [part.width for part in seen if part.width]
        if widths:
            effective += quantizer.dynamic_bits((1, widths[0])) / widths[0]
        elif seen:
            # Uses rows instead of the sample of values: scales per token and LayerNorm need whole vectors.
            pairs = [(row[None], each) for part, each in zip(seen, fitted, strict=True) for row in part.rows]
            rows = [row for row, _ in pairs]
            decoded = [each(row) for row, each in pairs]
            snr, clipped = _snr_db(rows, decoded), _clipped(pairs)
            if site.kind == "norm_input":
                snr_after_norm = _snr_db(*([self._normalize(site.module, x) for x in xs] for xs in (rows, decoded)))
            effective += sum(each.dynamic_bits(tuple(x.shape)) for x, each in pairs) / sum(x.numel() for x in rows)
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

    def _fit(self, format_: Format, statistics: Statistics | None) -> Quantizer:
        if statistics is None:
            return format_.for_activation(None, self.calibration)
        key = (id(statistics), format_)
        if key not in self._known:
            self._known[key] = format_.for_activation(statistics, self.calibration)
        # Return a copy, so that no two sites share buffers.
        return copy.deepcopy(self._known[key])


def _snr_db(xs: list[Tensor], decoded: list[Tensor]) -> float:
    """Return the signal-to-noise ratio in dB; infinite if the values are exact."""
    signal = sum(_squares(x) for x in xs)
    noise = sum(_squares(x, y) for x, y in zip(xs, decoded, strict=True))
    return math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal else -math.inf


def _squares(x: Tensor, y: Tensor | None = None) -> float:
    """Return the sum of squares of `x`, or of `x - y`: in float32 over 256 values at a time, then in float64."""
    total = 0.0
    values, others = x.reshape(-1), None if y is None else y.reshape(-1)
    for first in range(0, len(values), _PART):
        part = values[first : first + _PART].float()
        if others is not None:
            part = part - others[first : first + _PART]
        whole = len(part) // _ROW * _ROW
        rows, rest = part[:whole].view(-1, _ROW), part[whole:]
        total += float(rows.square().sum(1).sum(dtype=torch.float64)) + float(rest.double().square().sum())
    return total


def _clipped(pairs: Sequence[tuple[Tensor, Quantizer]]) -> float:
    """Return the share of values outside of the grids of their quantizers."""
    outside = total = 0
    for x, quantizer in pairs:
        bounds = quantizer.freeze(x).bounds()
        total += x.numel()
        if bounds is not None and x.numel():
            # The tolerance keeps rounding of the bounds from counting as clipping.
            low, high = (end + 1e-6 * end.abs() * side for end, side in zip(bounds, (-1, 1), strict=True))
            outside += _outside(x, low, high)
    return outside / total if total else 0.0


def _outside(x: Tensor, low: Tensor, high: Tensor) -> int:
    """Return the number of values of `x` below `low` or above `high`."""
    if all(bound.ndim == 0 or bound.shape[-1] == 1 for bound in (low, high)):
        # Most weights have no such value, and one pass over the extremes of rows shows that.
        least, most = x.aminmax(dim=-1, keepdim=True)
        if not ((least < low) | (most > high)).any():
            return 0
    return int(((x < low) | (x > high)).sum())
