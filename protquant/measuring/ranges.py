"""Report on how the ranges of activations depend on the length of sequences, to decide on bins of length.

The smallest and largest value of each activation are stored for every sequence, so that the effect of length can be
separated from the spread between proteins. Proteins of different lengths differ in more than length; crops of the same
proteins do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import spearmanr

from protquant.checkpoints import load
from protquant.errors import ProtquantError
from protquant.options import RangesOptions, takes
from protquant.preparing.quantize import calibration_sequences, gather_statistics
from protquant.quant.lengths import LengthBin
from protquant.running.devices import pick_device
from protquant.sites import ACTIVATION_KINDS, find_sites

__all__ = ["RangeReport", "crop_to_lengths", "range_by_length", "range_figure"]


@dataclass(frozen=True)
class RangeReport:
    """Ranges of every activation, sequence by sequence.

    Attributes
    ----------
    lengths : ndarray, shape=(n,)
        Number of residues of each sequence.
    extremes : dict
        Smallest and largest value of each sequence, shape (n, 2), by site.
    kinds : dict
        Kind by site.
    bins : tuple of LengthBin
        Bins that have sequences.
    empty : tuple of LengthBin
        Bins without sequences.
    cropped : bool
        Whether the sequences are crops of the same proteins.
    """

    lengths: NDArray[np.int64]
    extremes: dict[str, NDArray[np.float64]]
    kinds: dict[str, str]
    bins: tuple[LengthBin, ...]
    empty: tuple[LengthBin, ...]
    cropped: bool

    def in_bin(self, each: LengthBin) -> NDArray[np.bool_]:
        """Return a mask of the sequences in a bin."""
        return np.array([length in each for length in self.lengths])

    def rows(self) -> list[dict[str, Any]]:
        """Return one row for every site and bin: `site kind lengths sequences minimum maximum peak`.

        Peak is the median over sequences of the largest magnitude.
        """
        rows = []
        for site, extremes in self.extremes.items():
            for each in self.bins:
                chosen = extremes[self.in_bin(each)]
                rows.append(
                    {
                        "site": site,
                        "kind": self.kinds[site],
                        "lengths": str(each),
                        "sequences": len(chosen),
                        "minimum": float(chosen[:, 0].min()),
                        "maximum": float(chosen[:, 1].max()),
                        "peak": float(np.median(np.abs(chosen).max(1))),
                    }
                )
        return rows

    def growth(self) -> list[dict[str, Any]]:
        """Return the growth of the range of each site with length, the largest first.

        `site kind growth rank_correlation overshoot` and, under the name of each bin, its peak. Growth is g of
        peak ~ length^g, by least squares on logarithms: 0 if the range does not depend on length, 1 if it is
        proportional. The correlation is Spearman's of peak and length. Overshoot is the share of the last bin's largest
        magnitude that exceeds the first bin's: a range frozen on the first bin clips this share.
        """
        centered = np.log(self.lengths) - np.log(self.lengths).mean()
        chosen = [self.in_bin(each) for each in self.bins]
        rows = []
        for site, extremes in self.extremes.items():
            peaks = np.abs(extremes).max(1)
            varies = peaks.min() > 0 and np.ptp(peaks) > 0 and np.ptp(self.lengths) > 0
            first, last = peaks[chosen[0]].max(), peaks[chosen[-1]].max()
            row: dict[str, Any] = {
                "site": site,
                "kind": self.kinds[site],
                "growth": float(centered @ np.log(peaks) / (centered @ centered)) if varies else 0.0,
                "rank_correlation": float(spearmanr(self.lengths, peaks).statistic) if varies else 0.0,
                "overshoot": max(0.0, float(1 - first / last)) if last > 0 else 0.0,
            }
            bins = zip(self.bins, chosen, strict=True)
            rows.append(row | {str(each): float(np.median(peaks[inside])) for each, inside in bins})
        return sorted(rows, key=lambda row: -row["growth"])

    def summary(self) -> list[dict[str, Any]]:
        """Return one row for each kind of site: `kind sites growth largest_growth overshoot`.

        Growth is the median over sites; largest growth and overshoot are maxima.
        """
        frame = pd.DataFrame(self.growth())
        rows = []
        for kind, group in frame.groupby("kind", sort=False):
            largest = group[["growth", "overshoot"]].max()
            rows.append(
                {
                    "kind": str(kind),
                    "sites": len(group),
                    "growth": float(group["growth"].median()),
                    "largest_growth": float(largest["growth"]),
                    "overshoot": float(largest["overshoot"]),
                }
            )
        return rows


def crop_to_lengths(sequences: Sequence[str], lengths: Sequence[int]) -> list[str]:
    """Return crops of all `lengths` from every sequence that is long enough for all of them.

    Raises
    ------
    ProtquantError
        If no sequence is long enough.
    """
    if min(lengths) < 1:
        raise ProtquantError(f"a crop has at least one residue, not {min(lengths)}")
    longest = max(lengths)
    sequences = [sequence.replace(":", "") for sequence in sequences]
    chosen = [sequence for sequence in sequences if len(sequence) >= longest]
    if not chosen:
        raise ProtquantError(
            f"none of the {len(sequences)} sequences has {longest} residues to crop from (the longest has "
            f"{max(map(len, sequences))}); ask for shorter crops, or give a FASTA file of longer proteins"
        )
    return [sequence[:length] for length in sorted(set(lengths)) for sequence in chosen]


@takes(RangesOptions)
def range_by_length(options: RangesOptions) -> RangeReport:
    """Return the ranges of a float model's activations, sequence by sequence.

    Raises
    ------
    ProtquantError
        If no sequence is in any bin, or none is long enough to be cropped.
    """
    network = (
        load(options.model, device=pick_device(options.cpu_only)) if isinstance(options.model, str) else options.model
    )
    sequences = calibration_sequences(options.calibration)
    if options.lengths:
        sequences = crop_to_lengths(sequences, options.lengths)
    sizes = np.array([len(sequence.replace(":", "")) for sequence in sequences])
    full = [each for each in options.bins if any(size in each for size in sizes)]
    if not full:
        raise ProtquantError(
            f"no sequence has {', '.join(map(str, options.bins))} residues; they have {sizes.min()} to {sizes.max()}"
        )
    inside = [i for i, size in enumerate(sizes) if any(size in each for each in full)]
    statistics = gather_statistics(network, [sequences[i] for i in inside], progress=options.progress)
    extremes = {
        site: np.array([[low[0].item(), high[0].item()] for low, high in zip(seen.lowest, seen.highest, strict=True)])
        for site, seen in statistics.items()
    }
    kinds: dict[str, str] = {site.name: site.kind for site in find_sites(network) if site.kind in ACTIVATION_KINDS}
    return RangeReport(
        sizes[inside],
        extremes,
        kinds,
        tuple(full),
        tuple(each for each in options.bins if each not in full),
        bool(options.lengths),
    )


def range_figure(report: RangeReport, sites: Sequence[str]) -> Figure:
    """Smallest and largest value of every sequence against its length, a panel for each site; lines: those of bins."""
    columns = min(3, len(sites))
    rows = -(-len(sites) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows), layout="constrained")
    powers = np.arange(np.floor(np.log2(report.lengths.min())), np.ceil(np.log2(report.lengths.max())) + 1)
    ticks = [round(2**power) for power in powers]
    axes: Any = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axis, site in zip(axes, sites, strict=False):
        extremes = report.extremes[site]
        for side, color in ((0, "#0053d6"), (1, "#d64000")):
            axis.plot(report.lengths, extremes[:, side], "o", ms=3, alpha=0.6, color=color)
            for each in report.bins:
                chosen = report.in_bin(each)
                reach = extremes[chosen, side].min() if side == 0 else extremes[chosen, side].max()
                inside = report.lengths[chosen]
                axis.hlines(reach, inside.min() * 0.97, inside.max() * 1.03, color=color, lw=1.5)
        axis.axhline(0, color="black", lw=0.5)
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks, ticks)
        axis.set_title(site, fontsize=9)
        axis.set(xlabel="residues", ylabel="range")
    for axis in axes[len(sites) :]:
        axis.set_axis_off()
    return figure
