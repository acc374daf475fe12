"""Draw number formats: one row each, with a stroke for every level."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

__all__ = ["LevelRow", "Panel", "level_figure"]

_COLORS = "viridis"
# Limits of the color scale: gaps between levels, in standard deviations. Strokes with smaller gaps touch.
_GAPS = (0.01, 0.03, 0.1, 0.3, 1.0)
_BINS = 31
_TICKS = (-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100)
_INK, _FAINT = "#222222", "#8a8a8a"


class LevelRow(NamedTuple):
    """A format fitted to a token: its levels, ascending, its outliers, and its signal-to-noise ratio."""

    label: str
    bits: int
    levels: Sequence[float]
    outliers: Sequence[float]
    snr_db: float


class Panel(NamedTuple):
    """A token, shape (c,), and the rows of its formats; `stretch` widens the axis around 0."""

    title: str
    token: Sequence[float]
    stretch: bool
    rows: Sequence[LevelRow]


def level_figure(panels: Sequence[Panel]) -> Figure:
    """Return a figure of levels of formats, with one panel for each token; all panels have the same formats.

    A stroke is a level. Its color is the wider gap to a neighbor, in standard deviations of the token, so that fine and
    coarse levels can be compared. Diamonds are outliers. At the right of each row is its signal-to-noise ratio on the
    token.
    """
    num_rows = max(len(panel.rows) for panel in panels)
    figure = Figure(figsize=(6.6 * len(panels) + 1.6, 1.9 + 0.3 * num_rows), dpi=150, layout="constrained")
    axes = figure.subplots(2, len(panels), sharex="col", squeeze=False, height_ratios=(1, 0.3 * num_rows))
    norm = LogNorm(_GAPS[0], _GAPS[-1])
    for column, panel in enumerate(panels):
        _draw_token(axes[0, column], panel)
        _draw_rows(axes[1, column], panel, norm, labeled=column == 0)
    bar = figure.colorbar(
        ScalarMappable(norm, _COLORS), ax=list(axes.flat), shrink=0.6, pad=0.02, ticks=_GAPS, extend="both"
    )
    bar.set_label("gap to the next level (standard deviations)")
    bar.ax.set_yticklabels([f"{gap:g}" for gap in _GAPS])
    bar.ax.minorticks_off()
    return figure


def _draw_token(axis: Axes, panel: Panel) -> None:
    token = np.asarray(panel.token)
    low, high = float(token.min()), float(token.max())
    pad = 0.04 * (high - low)
    if panel.stretch:
        width = float(np.median(np.abs(token)))
        axis.set_xscale("asinh", linear_width=width)
        axis.set_xlim(low - 0.2 * pad, high + 3 * pad)
        bins = width * np.sinh(np.linspace(np.arcsinh(low / width), np.arcsinh(high / width), _BINS))
    else:
        axis.set_xlim(low - pad, high + pad)
        bins = np.linspace(low, high, _BINS)
    axis.hist(token, bins=bins.tolist(), color="#c9ced6")
    axis.plot(token, np.zeros_like(token), "|", color=_INK, ms=7, mew=0.7, clip_on=False)
    axis.set_title(panel.title, fontsize=11, loc="left", color=_INK)
    axis.set_yticks([])
    axis.spines[["left", "right", "top"]].set_visible(False)
    axis.tick_params(axis="x", labelbottom=False, length=0)


def _draw_rows(axis: Axes, panel: Panel, norm: LogNorm, labeled: bool) -> None:
    spread = float(np.std(panel.token))
    for row, (label, bits, levels, outliers, snr_db) in enumerate(panel.rows):
        if row and bits != panel.rows[row - 1].bits:
            axis.axhline(row - 0.5, color="#d9dce1", lw=0.8, zorder=0)
        values = np.asarray(levels)
        gaps = _widest_gaps(values) / spread
        ends = [[(value, row - 0.36), (value, row + 0.36)] for value in values]
        # Strokes are drawn in descending order of gaps, so that crowded fine ones are on top.
        order = np.argsort(-gaps)
        widths = np.clip(14 * gaps[order], 0.5, 1.6).tolist()
        strokes = LineCollection([ends[i] for i in order], cmap=_COLORS, norm=norm, linewidths=widths)
        strokes.set_array(gaps[order])
        axis.add_collection(strokes)
        axis.plot(outliers, [row] * len(outliers), "D", color="#d1495b", ms=4.5, mew=0)
        axis.annotate(
            f"{snr_db:.1f} dB",
            (1, row),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=_INK,
        )
        if not labeled:
            continue
        axis.annotate(
            label,
            (0, row),
            xycoords=("axes fraction", "data"),
            xytext=(-6, 0),
            textcoords="offset points",
            va="center",
            ha="right",
            fontsize=9,
            color=_INK,
        )
    axis.set_ylim(len(panel.rows) - 0.4, -0.6)
    if panel.stretch:
        axis.set_xticks([tick for tick in _TICKS if axis.get_xlim()[0] <= tick <= axis.get_xlim()[1]])
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
    axis.set_yticks([])
    axis.spines[["left", "right", "top"]].set_visible(False)
    axis.tick_params(axis="x", colors=_FAINT)


def _widest_gaps(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    gaps = np.diff(levels)
    return np.maximum(np.append(gaps[:1], gaps), np.append(gaps, gaps[-1:]))
