"""Quantization of a model by a recipe: its modules become quantized twins."""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protquant.errors import ProtquantError
from protquant.quant.calibrate import WEIGHT_KINDS
from protquant.quant.formats import Format, Quantizer, StaticQuantizer
from protquant.quant.modules import ActivationQuantizer, QuantizedLayerNorm, QuantizedLinear
from protquant.quant.observers import Statistics
from protquant.quant.ranges import Calibration
from protquant.quant.recipe import Assignment, Recipe, load_recipe
from protquant.quant.report import Report, SiteReport
from protquant.sites import find_sites

__all__ = ["plan", "quantize"]

_Model = TypeVar("_Model", bound=nn.Module)


def plan(model: nn.Module, recipe: Recipe | str | Path) -> list[Assignment]:
    """Return what `recipe` makes of each site of `model`; changes nothing.

    Raises
    ------
    ProtquantError
        Where the model has no sites, is quantized already, or a pattern of the recipe matches none.
    """
    if any(isinstance(m, ActivationQuantizer | QuantizedLinear | QuantizedLayerNorm) for m in model.modules()):
        raise ProtquantError("the model is quantized already; quantize the float model")
    if isinstance(model, nn.Linear | nn.LayerNorm):
        raise ProtquantError("a bare layer has no names for its sites; wrap it in a module")
    # A LayerNorm without a gain has no such site.
    sites = [s for s in find_sites(model) if s.kind not in WEIGHT_KINDS or _weight(model, s.module) is not None]
    return load_recipe(recipe).assign(sites)


def quantize(
    model: _Model,
    recipe: Recipe | str | Path,
    statistics: Mapping[str, Statistics] | None = None,
    *,
    inplace: bool = False,
) -> tuple[_Model, Report]:
    """Quantize `model` by `recipe`.

    Parameters
    ----------
    recipe : Recipe, str or Path
        A recipe, or the name or path of one.
    statistics : mapping, optional
        Of `calibrate`; needed where the recipe freezes ranges of activations.
    inplace : bool
        Whether to change `model` itself, which spares the memory of a copy.

    Returns
    -------
    nn.Module
        Of the same class, its sites quantized; weights that were are no longer trained.
    Report
        On every site.

    Raises
    ------
    ProtquantError
        Where statistics are missing, a format does not fit a site, or for the reasons of `plan`.
    """
    recipe = load_recipe(recipe)
    assignments = plan(model, recipe)
    statistics = statistics or {}
    missing = [
        a.site.name
        for a in assignments
        if _is_activation(a) and a.format and a.format.needs_statistics and a.site.name not in statistics
    ]
    if missing:
        raise ProtquantError(
            f"recipe {recipe.name} freezes the ranges of {len(missing)} activations that were not calibrated, the "
            f"first being {missing[0]}; pass the statistics of calibrate() on this model"
        )
    if not inplace:
        model = copy.deepcopy(model)
    float_bytes = _parameter_bytes(model)
    reports, fitted, saved = [], {}, 0
    fit_activation = _ActivationFitter(model, recipe.calibration)
    for assignment in assignments:
        name = assignment.site.name
        try:
            if _is_activation(assignment):
                quantizer, report = fit_activation(assignment, statistics.get(name))
            else:
                quantizer, report = _fit_weight(model, assignment)
        except ProtquantError as error:
            raise ProtquantError(f"recipe {recipe.name}, site {name}: {error}") from None
        reports.append(report)
        if quantizer is not None:
            fitted[name] = quantizer
            if not _is_activation(assignment):
                saved += _tensor_bytes(_weight(model, assignment.site.module)) - (report.bytes or 0)
    _replace_modules(model, fitted)
    return model, Report(recipe, reports, float_bytes - saved, float_bytes)


def _is_activation(assignment: Assignment) -> bool:
    return assignment.site.kind not in WEIGHT_KINDS


def _weight(model: nn.Module, path: str) -> Tensor | None:
    weight: Tensor | None = model.get_submodule(path).weight  # type: ignore[assignment]
    return weight


def _tensor_bytes(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.numel() * tensor.element_size()


def _parameter_bytes(model: nn.Module) -> int:
    return sum(_tensor_bytes(parameter) for parameter in model.parameters())


def _fit_weight(model: nn.Module, assignment: Assignment) -> tuple[Quantizer | None, SiteReport]:
    site, form, weight = assignment.site, assignment.format, _weight(model, assignment.site.module)
    assert weight is not None
    weight = weight.detach()
    bits, count = 8 * weight.element_size(), weight.numel()
    if form is None:
        nbytes = _tensor_bytes(weight)
        return None, SiteReport(
            site.name,
            site.kind,
            "float",
            assignment.reason,
            bits,
            bits,
            elements=count,
            bytes=nbytes,
            excluded=assignment.excluded,
        )
    if not torch.isfinite(weight).all():
        raise ProtquantError("the weight has a value that is not finite; the checkpoint may be damaged")
    quantizer = form.for_weight(weight).to(weight.device)
    nbytes = math.ceil(quantizer.code_bits * count / 8) + math.ceil(quantizer.scale_bits() / 8)
    return quantizer, SiteReport(
        site.name,
        site.kind,
        form.label,
        assignment.reason,
        bits=quantizer.code_bits,
        effective_bits=8 * nbytes / count,
        elements=count,
        bytes=nbytes,
        snr_db=_snr_db([weight], [quantizer(weight)]),
        clipped=_clipped([weight], quantizer),
    )


class _ActivationFitter:
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
        quantizer = self._fit(form, statistics)
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


def _replace_modules(model: nn.Module, fitted: Mapping[str, Quantizer]) -> None:
    def activation(name: str) -> ActivationQuantizer | None:
        return ActivationQuantizer(name, fitted[name]) if name in fitted else None

    def weight(name: str) -> StaticQuantizer | None:
        quantizer = fitted.get(name)
        assert quantizer is None or isinstance(quantizer, StaticQuantizer)
        return quantizer

    twins: dict[int, nn.Module] = {}
    for path, module in model.named_modules():
        twin: nn.Module | None = None
        if path in fitted:
            twin = activation(path)
        elif f"{path}.weight" in fitted or f"{path}.input" in fitted:
            if isinstance(module, nn.Linear):
                twin = QuantizedLinear(module, weight(f"{path}.weight"), activation(f"{path}.input"))
            elif isinstance(module, nn.LayerNorm):
                twin = QuantizedLayerNorm(module, weight(f"{path}.weight"), activation(f"{path}.input"))
        if twin is not None:
            twins[id(module)] = twin.train(module.training)
    # A module that hangs at several places has sites at the first only, and is replaced at all.
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if id(module) in twins:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, twins[id(module)])
