"""QLLM's adaptive channel reassembly (Liu et al. 2024): outlier channels are split, and similar ones merged.

The source is section 3 of the paper, or the code in `ziplab/QLLM` if it differs. The error correction of the same paper
is `protquant.quant.steps.low_rank_correction`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from protquant.quant.assignments import Assignments
from protquant.quant.channel_splitting import EqualSplit, Merge, pieces_at
from protquant.quant.evidence import Evidence
from protquant.quant.formats import Format
from protquant.quant.layer_error import LayerOutputs
from protquant.quant.patterns import PatternText
from protquant.quant.settings import Count, Rate
from protquant.quant.steps.base import LinkTransform, register_step
from protquant.quant.transforms import InputTransform, LinkLayers

__all__ = ["ChannelReassembly", "bipartite_groups", "merging_distance"]

# Maximal step between two thresholds, as in the paper's code.
_WIDEST_STEP = 0.5


def merging_distance(
    gram: Float[Tensor, "c c"], weight: Float[Tensor, "o c"], kind: str = "exact"
) -> Float[Tensor, "c c"]:
    """Return the error of merging channels i and j into their mean, with added weight columns, for all pairs.

    `exact`: Equation 5 of the paper, || (x_i - x_j) (W_i - W_j) / 2 ||^2, averaged over tokens, which is (G_ii + G_jj -
    2 G_ij) |W_i - W_j|^2 / 4. `proxy`: the term in the paper's code, (|x_i - x_j| sum_n (w_in + w_jn))^2, which
    compares the inputs but not the weights.
    """
    apart = _squared_distances(gram.double())
    columns = weight.double()
    if kind == "exact":
        return apart * _squared_distances(columns.T @ columns) / 4
    total = columns.sum(0)
    return apart * (total[:, None] + total).square()


def _squared_distances(gram: Float[Tensor, "c c"]) -> Float[Tensor, "c c"]:
    squares = gram.diagonal()
    return (squares[:, None] + squares - 2 * gram).clamp(min=0)


def bipartite_groups(
    distance: Float[Tensor, "c c"], protected: Bool[Tensor, " c"], number: int
) -> Integer[Tensor, " c"] | None:
    """Choose `number` channels to merge into others by bipartite soft matching (Bolya et al. 2023).

    Every channel of even index is linked to the nearest one of odd index, and the `number` shortest links are used.
    Several links may lead to one channel. Channels that are `protected` have no links.

    Returns
    -------
    Tensor of int, shape=(c,), or None
        Index of the new channel of each channel; the order of the remaining channels is unchanged. None if there are
        fewer than `number` links.
    """
    channels = len(distance)
    even, odd = torch.arange(0, channels, 2), torch.arange(1, channels, 2)
    even, odd = even.to(distance.device), odd.to(distance.device)
    links = distance[even][:, odd].masked_fill(protected[even, None] | protected[None, odd], torch.inf)
    if not links.numel():
        return None
    nearest = links.min(1)
    order = nearest.values.argsort(stable=True)[:number]
    if len(order) < number or not nearest.values[order].isfinite().all():
        return None
    target = torch.arange(channels, device=distance.device)
    target[even[order]] = odd[nearest.indices[order]]
    remaining = torch.ones(channels, dtype=torch.bool, device=distance.device)
    remaining[even[order]] = False
    return (remaining.cumsum(0) - 1)[target]


@register_step("qllm_reassembly")
@dataclass(frozen=True, kw_only=True)
class ChannelReassembly(LinkTransform):
    """Split channels above a threshold theta into T = ceil(max|x| / theta) channels x / T, and merge as many others.

    Thresholds are tried from the highest down, while the number of further channels is within `budget`. The threshold
    with the least error of quantized outputs is used, or none. For each threshold, channels are first merged
    (assembly), then split (disassembly), so that their number stays the same; a split channel is never merged.

    Disassembly does not change the function of the model. Assembly does.

    Attributes
    ----------
    layers : tuple of str
        By default, as in the paper, all linear layers but the output projections of attention.
    budget : float
        Maximal number of further channels, as a share of the input channels of a layer.
    assembly : bool
        Whether to merge channels; otherwise the layer has more channels than before.
    distance : str
        `exact` or `proxy`, see `merging_distance`. At 4 bits on 9 chains with ESM-2 8M the long-range precision of
        contacts was 0.091 with `exact` and 0.063 with `proxy` (0.068 without reassembly); their drift was 0.009 with
        both (0.011 without).
    candidates : int
        Minimal number of thresholds between the smallest and the largest channel maximum.

    Raises
    ------
    ProtquantError
        For an invalid setting.
    """

    layers: tuple[PatternText, ...] = (r"re:(?!.*(attn\w*|ipa)\.out_proj$).*",)
    budget: Rate = 0.2
    assembly: bool = True
    distance: Literal["exact", "proxy"] = "exact"
    candidates: Count = 100

    def apply(self, link: LinkLayers, evidence: Evidence, assignments: Assignments) -> None:
        readers = {path: (assignments.weight_format(path), assignments.input_format(path)) for path in link.readers}
        formats = {path: pair for path, pair in readers.items() if any(pair) and self.is_for(path)}
        for transform in self._best(link, evidence, formats):
            link.prepend(transform)

    def _best(
        self, link: LinkLayers, evidence: Evidence, formats: Mapping[str, tuple[Format | None, Format | None]]
    ) -> list[InputTransform]:
        outputs = LayerOutputs(evidence, link.readers)
        weight = torch.cat([reader.weight.detach() for reader in link.readers.values()])
        distance = merging_distance(evidence.gram, weight, self.distance) if self.assembly else None
        best: list[InputTransform] = []
        least = outputs.error(best, formats)
        for counts in self._disassemblies(evidence.absolute_maximum):
            transforms = reassemble(counts, distance)
            if transforms is None:  # There are too few links, and lower thresholds need even more.
                break
            error = outputs.error(transforms, formats)
            if error < least:
                best, least = transforms, error
        return best

    def _disassemblies(self, maximum: Float[Tensor, " c"]) -> list[Integer[Tensor, " c"]]:
        """Return the pieces of each channel, for every threshold that adds more channels than the one before."""
        highest, lowest = maximum.max().item(), maximum.min().item()
        steps = max(self.candidates, int(highest / _WIDEST_STEP))
        found: list[Integer[Tensor, " c"]] = []
        most = 0
        for step in range(steps):
            counts = pieces_at(maximum, highest - (highest - lowest) * step / steps) if highest > 0 else None
            extra = 0 if counts is None else int(counts.sum()) - len(maximum)
            if extra > self.budget * len(maximum):
                break
            if counts is not None and extra > most:
                found.append(counts)
                most = extra
        return found


def reassemble(counts: Integer[Tensor, " c"], distance: Float[Tensor, "c c"] | None) -> list[InputTransform] | None:
    """Return transforms that merge as many channels as the split into `counts` pieces adds, then split.

    Parameters
    ----------
    distance : Tensor, shape=(c, c), or None
        Errors of merging, see `merging_distance`; None only splits.

    Returns
    -------
    list or None
        None if there are too few channels to merge.
    """
    if distance is None:
        return [EqualSplit.of(counts)]
    group = bipartite_groups(distance, counts > 1, int((counts - 1).sum()))
    if group is None:
        return None
    left = counts.new_ones(int(group.max()) + 1)
    left[group] = counts  # Split channels are alone in their groups; all other channels have one piece.
    return [Merge.of(group), EqualSplit.of(left)]
