"""Figures of sensitivities, and of the frontier of drift against bits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from protquant.choosing.auto import AutoRecipe
from protquant.choosing.sensitivity import Sensitivity
from protquant.errors import ProtquantError

__all__ = ["frontier_figure", "sensitivity_figure"]

_COLORS = "magma_r"
_CELL = 0.3  # inches
_OUTSIDE = "outside of blocks"
_MIN_COLUMNS = 6  # room for a title
DRIFT_LABELS = {
    "contact_drift": "contact drift (mean |change of probability|)",
    "logit_kl": "KL of logits (nats)",
    "lddt_drift": "lDDT drift (1 - lDDT-CA to float)",
    "distogram_kl": "KL of distogram (nats)",
    "tm_drift": "TM drift (1 - TM to float)",
}


def sensitivity_figure(found: Sensitivity, drift: str | None = None) -> Figure:
    """Return a figure of blocks x parts, colored by drift (log scale), each part in its format of fewest bits.

    Each chain of blocks has one panel for weights and one for activations; one panel is for sites outside of blocks.
    """
    drift = drift or found.drifts[0]
    if drift not in found.drifts:
        raise ProtquantError(f"there is no drift {drift!r}; there are {', '.join(found.drifts)}")
    frame = found.to_frame()
    frame = frame.loc[frame.groupby("group", sort=False)["bits"].idxmin()]
    frame["is_weight"] = frame["group"].str.endswith(("weight", "weights"))
    numbers = frame["block"].str.extract(r"^(.*)\.(\d+)$")
    frame["chain"], frame["number"] = numbers[0].fillna(""), pd.to_numeric(numbers[1])
    panels = [
        (chain, part)
        for chain, of_chain in frame[frame["chain"] != ""].groupby("chain", sort=False)
        for _, part in reversed(list(of_chain.groupby("is_weight")))
    ]
    tables = [
        (
            f"{chain}: {'weights' if part['is_weight'].iloc[0] else 'activations'}",
            part.pivot(index="number", columns="part", values=drift)[part["part"].unique()],
        )
        for chain, part in panels
    ]
    rest = frame[frame["chain"] == ""]
    if len(rest):
        tables.append((_OUTSIDE, rest.set_index("group")[[drift]].rename(columns={drift: ""})))
    positive = frame[drift][frame[drift] > 0]
    # Very small drifts get one color; otherwise half of the color range would show rounding.
    top = float(positive.max()) if len(positive) else 1.0
    norm = LogNorm(max(float(positive.min()) if len(positive) else 0.1, top * 1e-4), top)
    widths = [max(_MIN_COLUMNS, len(table.columns)) for _, table in tables]
    rows = max(len(table) for _, table in tables)
    height = max(3.2, 1.9 + _CELL * rows)
    labels = 1.1 + (2.6 if len(rest) else 0.0)
    figure = Figure(figsize=(_CELL * sum(widths) + 0.7 * len(tables) + labels, height), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(tables), width_ratios=widths))
    for axis, (title, table) in zip(axes, tables, strict=True):
        _heat(axis, title, table, norm)
        if title == _OUTSIDE:
            # Cells have the same height as those of blocks.
            axis.set_ylim(rows - 0.5, -0.5)
            axis.set_xticks([])
            axis.spines[:].set_visible(False)
    figure.suptitle(_formats(frame), fontsize=9)
    figure.colorbar(axes[0].images[0], ax=list(axes), label=DRIFT_LABELS.get(drift, drift), pad=0.02)
    return figure


def _formats(frame: pd.DataFrame) -> str:
    lines = []
    for is_weight, rows in reversed(list(frame.groupby("is_weight"))):
        formats = rows["format"].unique()
        role = "weights" if is_weight else "activations"
        lines.append(f"{role}: {formats[0] if len(formats) == 1 else 'in the formats of fewest bits'}")
    return "; ".join(lines)


def _heat(axis: Axes, title: str, table: pd.DataFrame, norm: LogNorm) -> None:
    shown = np.clip(table.to_numpy(dtype=float), norm.vmin, norm.vmax)
    axis.imshow(shown, cmap=_COLORS, norm=norm, aspect="auto", interpolation="none")
    axis.set_title(title, fontsize=9, loc="left")
    axis.set_xticks(range(len(table.columns)), [_part(name) for name in table.columns], rotation=90, fontsize=7)
    labels = [f"{label:g}" if isinstance(label, float | int) else _part(str(label)) for label in table.index]
    step = max(1, len(labels) // 24) if all(label.isdigit() for label in labels) else 1
    axis.set_yticks(range(0, len(labels), step), labels[::step], fontsize=7)
    if table.index.name == "number":
        axis.set_ylabel("block", fontsize=8)


def _part(name: str) -> str:
    return name.removesuffix(".weight").removesuffix(".input").removesuffix(" weights").removesuffix(" activations")


def frontier_figure(found: AutoRecipe) -> Figure:
    """Return a figure of drift against effective bits of weights: automatic choices, uniform formats, other recipes."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axis = figure.subplots()
    frame = found.to_frame()
    lines: dict[str, pd.DataFrame] = {"automatic": frame[frame["kind"] == "auto"]}
    uniform = frame[frame["kind"] == "uniform"]
    for family, rows in uniform.groupby(uniform["recipe"].str.replace(r"^w\d+ ", "", regex=True), sort=False):
        lines[f"one width, {family}"] = rows
    for (label, rows), style in zip(lines.items(), ("o-", "s--", "^--", "v--", "D--"), strict=False):
        ordered = rows.sort_values("weight_bits")
        axis.plot(ordered["weight_bits"], ordered[found.drift], style, label=label, lw=1.6 if style == "o-" else 1.0)
    others = frame[frame["kind"] == "recipe"]
    if len(others):
        axis.plot(others["weight_bits"], others[found.drift], "k*", ms=8, label="recipes")
        _name(axis, others.to_dict("records"), found.drift)
    chosen = found.row
    axis.plot(chosen["weight_bits"], chosen[found.drift], "o", ms=13, mfc="none", mec="black", label=chosen["recipe"])
    axis.set_yscale("log")
    axis.set(xlabel="effective bits per weight, scales included", ylabel=DRIFT_LABELS.get(found.drift, found.drift))
    axis.grid(alpha=0.3, which="both", lw=0.5)
    axis.legend(fontsize=8)
    return figure


def _name(axis: Axes, rows: Sequence[Mapping[Any, Any]], drift: str) -> None:
    for row in rows:
        axis.annotate(
            row["recipe"], (row["weight_bits"], row[drift]), xytext=(6, 4), textcoords="offset points", fontsize=7
        )
