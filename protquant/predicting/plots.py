"""Figures of predictions: pLDDT along the chain, predicted aligned error, and contact maps."""

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axes._secondary_axes import SecondaryAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from protquant.files import atomic_write
from protquant.proteins import Prediction, chain_ids

__all__ = ["contact_figure", "plot_contacts", "plot_pae", "plot_plddt", "plot_prediction", "prediction_figure"]

# AlphaFold DB's confidence colors, from very low (below 50) to very high (above 90).
_CONFIDENCE = ((50, "#ff7d45"), (70, "#ffdb13"), (90, "#65cbf3"), (100, "#0053d6"))
_CONTACTS = ListedColormap(["white", "#b0b0b0"])


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, atomically; needs no display."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return atomic_write(path, buffer.getvalue())


def _warn(figure: Figure, warnings: Sequence[str]) -> None:
    """Put warnings above the axes, as the title of the figure."""
    if warnings:
        width = int(12 * figure.get_figwidth())  # characters in a line
        lines = [line for warning in warnings for line in textwrap.wrap(f"WARNING: {warning}", width)]
        figure.suptitle("\n".join(lines), color="firebrick", fontsize=9)


def _borders(prediction: Prediction) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]], list[str]]:
    """Return the ends and middles of chains, counted in residues of all chains, and their names.

    All are empty for a single chain.
    """
    lengths = [len(chain) for chain in prediction.chains]
    if len(lengths) == 1:
        return np.empty(0), np.empty(0), []
    ends = np.cumsum(lengths)
    return ends[:-1] + 0.5, ends - (np.array(lengths) - 1) / 2, chain_ids(len(lengths))


def _name_chains(axis: SecondaryAxis, places: NDArray[np.floating[Any]], names: list[str]) -> None:
    axis.set_ticks(places, names, fontsize=8)
    axis.tick_params(length=0)


def prediction_figure(prediction: Prediction) -> Figure:
    """Return a figure of pLDDT along the sequence, with AlphaFold DB's confidence bands, and of the aligned error.

    The warnings are the title. Both parts show borders and names of chains.
    """
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    _warn(figure, prediction.warnings)
    line, matrix = figure.subplots(1, 2, width_ratios=(1.6, 1))
    _draw_plddt(line, prediction)
    _draw_pae(figure, matrix, prediction)
    return figure


def plot_prediction(prediction: Prediction, path: Path) -> Path:
    """Write `prediction_figure` as PNG."""
    return save_figure(prediction_figure(prediction), path)


def plot_plddt(prediction: Prediction, path: Path) -> Path:
    """Write the left half of `prediction_figure` as PNG."""
    figure = Figure(figsize=(6.2, 3.6), layout="constrained")
    _warn(figure, prediction.warnings)
    _draw_plddt(figure.subplots(), prediction)
    return save_figure(figure, path)


def plot_pae(prediction: Prediction, path: Path) -> Path:
    """Write the right half of `prediction_figure` as PNG."""
    figure = Figure(figsize=(4.4, 3.6), layout="constrained")
    _warn(figure, prediction.warnings)
    _draw_pae(figure, figure.subplots(), prediction)
    return save_figure(figure, path)


def _draw_plddt(line: Axes, prediction: Prediction) -> None:
    bottom = 0
    for top, color in _CONFIDENCE:
        line.axhspan(bottom, top, color=color, alpha=0.25, lw=0)
        bottom = top
    residues = np.arange(1, prediction.length + 1)
    line.plot(residues, prediction.plddt, color="black", lw=1.2)
    line.set(xlabel="residue", ylabel="pLDDT", ylim=(0, 100), xlim=(1, max(2, prediction.length)))
    scores = f"mean pLDDT {prediction.mean_plddt:.1f}, pTM {prediction.ptm:.2f}"
    if math.isfinite(prediction.iptm):
        scores += f", ipTM {prediction.iptm:.2f}"
    line.set_title(f"{prediction.name}: {scores}", fontsize=10)
    ends, middles, names = _borders(prediction)
    for end in ends:
        line.axvline(end, color="black", lw=0.8, ls=":")
    if names:
        _name_chains(line.secondary_xaxis("top"), middles, names)


def _draw_pae(figure: Figure, matrix: Axes, prediction: Prediction) -> None:
    if prediction.pae is not None:
        last = prediction.length + 0.5
        image = matrix.imshow(
            prediction.pae, cmap="Greens_r", vmin=0, vmax=prediction.max_pae, extent=(0.5, last, last, 0.5)
        )
        figure.colorbar(image, ax=matrix, label="expected error (angstrom)")
        matrix.set(xlabel="scored residue", ylabel="aligned residue")
    ends, middles, names = _borders(prediction)
    for end in ends:
        matrix.axvline(end, color="black", lw=0.8)
        matrix.axhline(end, color="black", lw=0.8)
    if names:
        _name_chains(matrix.secondary_xaxis("top"), middles, names)
        _name_chains(matrix.secondary_yaxis("right"), middles, names)


def contact_figure(
    maps: Sequence[tuple[str, NDArray[np.floating[Any]]]],
    distances: NDArray[np.floating[Any]] | None = None,
    warnings: Sequence[str] = (),
) -> Figure:
    """Return a figure of contact maps side by side; true contacts, if known, are gray below the diagonal.

    Parameters
    ----------
    maps : sequence of (title, ndarray of shape (l, l))
        Probabilities, 0-1.
    distances : ndarray, shape=(l, l), optional
        Distances between C-betas in angstrom.
    warnings : sequence of str
        Title of the figure.
    """
    figure = Figure(figsize=(4.2 * len(maps) + 0.6, 4), layout="constrained")
    _warn(figure, warnings)
    axes = np.atleast_1d(figure.subplots(1, len(maps)))
    for axis, (title, probabilities) in zip(axes, maps, strict=True):
        shown = np.array(probabilities, dtype=float)
        if distances is not None:
            shown[np.tril_indices_from(shown)] = np.nan
            true = np.tril(np.nan_to_num(distances, nan=np.inf) < 8)
            axis.imshow(true, cmap=_CONTACTS)
        image = axis.imshow(shown, cmap="Blues", vmin=0, vmax=1)
        axis.set_title(title, fontsize=10)
        axis.set(xlabel="residue", ylabel="residue")
    figure.colorbar(image, ax=list(axes), label="contact probability", shrink=0.8)
    return figure


def plot_contacts(
    probabilities: NDArray[np.floating[Any]], title: str, path: Path, warnings: Sequence[str] = ()
) -> Path:
    """Write one contact map as PNG."""
    return save_figure(contact_figure([(title, probabilities)], warnings=warnings), path)
