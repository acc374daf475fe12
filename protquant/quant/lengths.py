"""Bins of sequence length, to calibrate on proteins as long as those of the task (SLAC, Lee et al. 2023).

The paper found that activation ranges of some language models grow with the length of the calibration sequences, and so
calibrates on the length of the task. `protquant ranges` measures this for a model.

We measured the exponent g, with the largest magnitude proportional to residues^g, on crops of the same proteins. In
ESM-2 8M the residual stream does not depend on length (inputs of LayerNorm, median g -0.01). Its attention logits do
(0.18: half as large again at 1,000 residues as at 100), and so do the inputs of two output projections (0.34). In the
demo's folding trunk medians by kind are at most 0.05, with one exception: `tri_mul_*.out_norm.input` is a sum over
residues, not a mean, and grows with their number or faster (g 0.97 to 1.56). A range frozen on 48 residues cuts off at
least three quarters of the range at 192.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from protquant.errors import ProtquantError

if TYPE_CHECKING:
    from protquant.quant.observers import Statistics

__all__ = ["DEFAULT_BINS", "BinnedStatistics", "LengthBin", "bin_edges", "in_bin", "nearest_bin", "parse_lengths"]

_Sequence = TypeVar("_Sequence")


@dataclass(frozen=True)
class LengthBin:
    """Lengths from `low` to below `high`; no upper limit if `high` is None."""

    low: int
    high: int | None = None

    def __contains__(self, length: int) -> bool:
        return self.low <= length and (self.high is None or length < self.high)

    def __str__(self) -> str:
        return f"{self.low}-{'' if self.high is None else self.high}"


DEFAULT_BINS = (LengthBin(0, 128), LengthBin(128, 256), LengthBin(256, 512), LengthBin(512, 1024))


def parse_lengths(text: str) -> tuple[LengthBin, ...]:
    """Return the bins of a setting: `128-256`, several such as `0-128,128-256,256-`, or `bins` for `DEFAULT_BINS`.

    Raises
    ------
    ProtquantError
        If the text has another form, or bins are empty, overlap or do not ascend.
    """
    if text == "bins":
        return DEFAULT_BINS
    bins = []
    for part in str(text).split(","):
        low, dash, high = part.strip().partition("-")
        if not dash or not low.isdecimal() or not (high.isdecimal() or not high):
            raise ProtquantError(
                f"lengths {text!r}: {part.strip()!r} is no range such as 128-256 or 512-; give one range, several with "
                "commas between, or 'bins'"
            )
        bins.append(LengthBin(int(low), int(high) if high else None))
    for each in bins:
        if each.high is not None and each.high <= each.low:
            raise ProtquantError(f"lengths {text!r}: no length is in {each}")
    for left, right in pairwise(bins):
        if left.high is None or right.low < left.high:
            raise ProtquantError(f"lengths {text!r}: {right} does not come behind {left}")
    return tuple(bins)


def bin_edges(bins: Sequence[LengthBin]) -> tuple[int, ...]:
    """Return the lengths at which the nearest bin changes: the end of a bin, or the middle of a gap."""
    return tuple(((left.high or left.low) + right.low + 1) // 2 for left, right in pairwise(bins))


def nearest_bin(edges: Sequence[int], length: int) -> int:
    """Return the index of the bin that contains a length or is nearest to it; `edges` come from `bin_edges`."""
    return bisect_right(edges, length)


def in_bin(each: LengthBin, sequences: Sequence[_Sequence], length: Callable[[_Sequence], int]) -> list[_Sequence]:
    """Return the sequences whose length is in a bin.

    Raises
    ------
    ProtquantError
        If there are none.
    """
    chosen = [sequence for sequence in sequences if length(sequence) in each]
    if not chosen:
        lengths = [length(sequence) for sequence in sequences]
        known = f"they have {min(lengths)} to {max(lengths)}" if lengths else "there are none"
        raise ProtquantError(
            f"none of the {len(lengths)} calibration sequences has {each} residues ({known}); calibrate on a FASTA "
            "file that has such sequences, or leave these lengths out of the recipe's calibration.lengths"
        )
    return chosen


@dataclass(frozen=True)
class BinnedStatistics:
    """Statistics of one site, with one part for the sequences of each bin."""

    bins: tuple[LengthBin, ...]
    parts: "tuple[Statistics, ...]"
