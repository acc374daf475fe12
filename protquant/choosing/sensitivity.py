"""The table of `protquant sensitivity`: drift of a model when a single part is quantized."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from protquant.checkpoints import load
from protquant.demo.memorized import notes_on_targets
from protquant.errors import ProtquantError
from protquant.files import fingerprint
from protquant.files.plain_data import parse_json
from protquant.files.run_store import RunStore
from protquant.measuring.drift import drift_measure
from protquant.measuring.grid import Job, run_grid
from protquant.models import ProteinModel
from protquant.options import Granularity, SensitivityOptions, takes
from protquant.predicting.folding import check_folding_options
from protquant.preparing.quantize import calibration_sequences, gather_statistics
from protquant.quant import Format, Uniform, format_from_config, load_recipe, model_hash, plan
from protquant.quant.sensitivity import FormatTrials, SiteGroup, group_sites
from protquant.running.devices import parse_dtype, pick_device
from protquant.structures import load_references

__all__ = ["Sensitivity", "measured_sequences", "open_model", "sensitivity", "weight_formats"]

_KEYS = ("group", "block", "part", "sites", "elements", "format", "config", "bits")
_NUM_REFERENCES = 3


@dataclass
class Sensitivity:
    """The results of `sensitivity`.

    Attributes
    ----------
    rows : list of dict
        One row per group and format: `group`, `block`, `part`, `sites` (their number), `elements`, `format`, `config`
        (the format as JSON), `bits` (effective bits of an element) and the drifts.
    drifts : tuple of str
        Columns of the drifts, the main one first.
    settings : str
        Fingerprint of the model and of all settings that the numbers depend on.
    notes : list of str
        Notes for readers of the table.
    """

    rows: list[dict[str, Any]]
    drifts: tuple[str, ...]
    settings: str
    notes: list[str]

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a table."""
        return pd.DataFrame(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the results as a JSON document."""
        return {"rows": self.rows, "drifts": list(self.drifts), "settings": self.settings, "notes": self.notes}

    def most_sensitive(self, drift: str, count: int = 10) -> list[dict[str, Any]]:
        """Return the rows of the formats with the fewest bits, the largest drift first."""
        fewest = {row["group"]: row for row in sorted(self.rows, key=lambda row: -row["bits"])}
        return sorted(fewest.values(), key=lambda row: -row[drift])[:count]

    def _repr_html_(self) -> str:
        return self.to_frame().drop(columns="config").to_html(index=False, float_format=lambda value: f"{value:.4g}")


def weight_formats(
    bits: Sequence[int], granularity: Granularity = "channel", group_size: int = 64
) -> tuple[Uniform, ...]:
    """Return uniform formats: symmetric with a scale per output channel, affine with a scale per group, or both.

    Raises
    ------
    ProtquantError
        If the granularity is unknown, or a number is invalid for the format.
    """
    if granularity not in ("channel", "group", "both"):
        raise ProtquantError(f"granularity {granularity!r} is none of channel, group, both")
    families: list[Uniform] = []
    if granularity != "group":
        families += [Uniform(b, symmetric=True, granularity="channel") for b in bits]
    if granularity != "channel":
        families += [Uniform(b, symmetric=False, granularity="group", group_size=group_size) for b in bits]
    return tuple(families)


def open_model(model: str | Path | ProteinModel, dtype: str, cpu_only: bool) -> ProteinModel:
    """Return the given model, or load it."""
    if isinstance(model, ProteinModel):
        return model
    return load(model, dtype=parse_dtype(dtype), device=pick_device(cpu_only))


def measured_sequences(
    network: ProteinModel, fasta: Path | Sequence[str] | None, limit: int | None
) -> tuple[list[str], str]:
    """Return the sequences to measure drift on, and a description of them.

    By default these are the calibration sequences for a language model, and the first shipped chains for a folding
    model.
    """
    if fasta is not None and not isinstance(fasta, str | Path):
        return list(fasta)[:limit], "sequences that were given"
    if fasta is None and "structure" in network.tasks:
        references = load_references(None, limit or _NUM_REFERENCES)
        return [reference.sequence for reference in references], "the first of the shipped chains"
    where = "the shipped UniProt proteins" if fasta is None else str(fasta)
    return calibration_sequences(fasta, limit), where


@takes(SensitivityOptions)
def sensitivity(options: SensitivityOptions) -> Sensitivity:
    """Quantize one part of a model at a time, to several widths, and measure the drift from the float model.

    Weights are rounded to nearest; the steps of the base recipe are not run.

    Raises
    ------
    ProtquantError
        If an argument cannot be used, or `output` has a table of another model or other settings.
    """
    check_folding_options(options.num_recycles, None)
    network = open_model(options.model, options.dtype, options.cpu_only)
    recipe = load_recipe(options.base)
    measured, where = measured_sequences(network, options.sequences, options.limit)
    measure = drift_measure(network, options.num_recycles)
    assignments = [a for a in plan(network, recipe) if a.format is not None and a.site.kind != "norm_gain"]
    weights = weight_formats(options.weight_bits, options.granularity, options.group_size)
    if not options.activation_bits:
        assignments = [a for a in assignments if not a.is_activation]
    if not options.weight_bits:
        assignments = [a for a in assignments if a.is_activation]
    if not assignments:
        raise ProtquantError(f"recipe {recipe.name} leaves everything in float that was to be tried; name another base")
    base_formats = {a.site.name: a.format for a in assignments}
    groups = group_sites(network, [a.site for a in assignments], options.by)
    calibrating = calibration_sequences(options.calibration)
    has_activations = any(not group.is_weight for group in groups)
    settings = fingerprint(
        {
            "model": model_hash(network),
            "by": options.by,
            "sequences": measured,
            "num_recycles": options.num_recycles,
            "calibration": [calibrating, recipe.calibration] if has_activations else None,
        }
    )[:16]
    store = RunStore(options.output)
    _check_table(store, settings)

    def formats(group: SiteGroup) -> list[Format]:
        format_ = base_formats[group.sites[0].name]
        return list(weights) if group.is_weight else [_with_bits(format_, bits) for bits in options.activation_bits]

    tried = [(group, format_) for group in groups for format_ in formats(group)]
    keys = [
        fingerprint({"settings": settings, "group": group.name, "format": format_.to_config()})
        for group, format_ in tried
    ]
    unfinished = [group for (group, _), key in zip(tried, keys, strict=True) if store.finished(key) is None]
    progress = sys.stderr.isatty()
    statistics = None
    if any(not group.is_weight for group in unfinished):
        statistics = gather_statistics(network, calibrating, progress=progress)
    trial = FormatTrials(
        network,
        measured,
        measure.run,
        measure.compare,
        statistics=statistics,
        calibration=recipe.calibration,
        progress=progress,
    )
    jobs = [
        Job({"group": group.name}, key, partial(_measure, trial, group, format_, settings))
        for (group, format_), key in zip(tried, keys, strict=True)
    ]
    for _ in run_grid(jobs, store, "sensitivity", len(jobs)):
        pass
    rows = [{name: row.get(name, math.nan) for name in (*_KEYS, *measure.names)} for row in store.rows()]
    order = {group.name: number for number, group in enumerate(groups)}
    rows = sorted((row for row in rows if row["group"] in order), key=lambda row: (order[row["group"]], -row["bits"]))
    notes = [
        f"Drift from the float model on {len(measured)} sequences: {where}.",
        "Each part alone, rounded to nearest, all else in float: drifts of several parts need not add up.",
    ]
    if "structure" in network.tasks:
        notes += notes_on_targets(network, measured, shipped=False)
    return Sensitivity(rows, measure.names, settings, notes)


def _with_bits(format_: Format | None, bits: int) -> Format:
    if format_ is None or not hasattr(format_, "bits"):
        raise ProtquantError(
            f"the base's format {'float' if format_ is None else format_.label} has no bits to be changed"
        )
    changed: Format = replace(format_, bits=bits)  # type: ignore[type-var]
    return changed


def _measure(trial: FormatTrials, group: SiteGroup, format_: Format, settings: str) -> dict[str, Any]:
    measured = trial(group, format_)
    return {
        "group": group.name,
        "block": group.block,
        "part": group.part,
        "sites": len(group.sites),
        "elements": measured.elements,
        "format": format_.label,
        "config": json.dumps(format_.to_config()),
        "bits": measured.bits,
        **measured.drift,
        "settings": settings,
    }


def _check_table(store: RunStore, settings: str) -> None:
    """Raise an error for a table of another model or other settings, whose rows would be mixed with the new ones."""
    for number, row in enumerate(store.rows(), start=1):
        if missing := [name for name in (*_KEYS, "settings") if name not in row]:
            raise ProtquantError(
                f"{store.path}: this is no table of sensitivities (no {missing[0]} in row {number}); name another file"
            )
        if row["settings"] != settings:
            raise ProtquantError(
                f"{store.path}: this table was made of another model, other sequences or other settings; "
                "name another file, or delete it"
            )
        try:
            format_from_config(parse_json(row["config"]))
        except (ValueError, TypeError) as error:
            raise ProtquantError(
                f"{store.path}: row {number}: {row['config']!r} is no format ({error}); name another file"
            ) from None
