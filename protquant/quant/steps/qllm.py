"""QLLM's adaptive channel reassembly (Liu et al. 2024): outlier channels are taken apart, like ones put together.

Section 3 of the paper, and `ziplab/QLLM` where its code does otherwise. The error correction that follows it is
`protquant.quant.steps.low_rank_correction`.
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

# Steps between thresholds, at least as many over the range of channel maxima, and none wider than this; as the code.
_WIDEST_STEP = 0.5


def merging_distance(
    gram: Float[Tensor, "c c"], weight: Float[Tensor, "o c"], kind: str = "exact"
) -> Float[Tensor, "c c"]:
    """What it costs to make one of the channels i and j, their mean, and to add their columns of `weight`.

    `exact`: Equation 5 of the paper, || (x_i - x_j) (W_i - W_j) / 2 ||^2 in the mean over tokens, which is
    (G_ii + G_jj - 2 G_ij) |W_i - W_j|^2 / 4. `proxy`: what the code has in its place,
    (|x_i - x_j| sum_n (w_in + w_jn))^2, which asks whether the inputs are alike but not whether the weights are.
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
    """Bipartite soft matching (Bolya et al. 2023): `number` channels are merged into others, without a search.

    Channels of even index are linked to the nearest of odd index; of these links the `number` shortest are kept.
    Several may lead to one channel. Those that are `protected` are linked to none.

    Returns
    -------
    Tensor of int, shape=(c,), or None
        Of every channel the index of what it goes to; what is left keeps its order. None where there are not as many
        links.
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
    kept = torch.ones(channels, dtype=torch.bool, device=distance.device)
    kept[even[order]] = False
    return (kept.cumsum(0) - 1)[target]


@register_step("qllm_reassembly")
@dataclass(frozen=True, kw_only=True)
class ChannelReassembly(LinkTransform):
    """Make T channels of x / T of one that goes beyond a threshold, and merge as many others; T = ceil(max|x| / theta).

    Thresholds are tried from the highest down, as long as they make no more channels than `budget` allows; the one is
    taken whose quantized outputs are nearest to the float ones, none among them. For each, channels are assembled first
    and disassembled then, so that their number stays; what is split is never merged.

    Disassembly leaves the function of the model as it is. Assembly does not.

    Attributes
    ----------
    layers : tuple of str
        The paper leaves out the output projections of attention, and so does the default.
    budget : float
        Further channels, as a share of those that a layer reads.
    assembly : bool
        Whether to merge; without it the layer keeps the further channels.
    distance : str
        `exact` or `proxy`, see `merging_distance`. At 4 bits on 9 chains with ESM-2 8M the long-range precision of
        contacts was 0.091 and 0.063 (0.068 without reassembly), the drift of both 0.009 (0.011).
    candidates : int
        At least so many thresholds between the smallest and the largest channel.

    Raises
    ------
    ProtquantError
        For a setting that it cannot have.
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
            if transforms is None:  # More to merge than there are links: lower thresholds ask for more still.
                break
            error = outputs.error(transforms, formats)
            if error < least:
                best, least = transforms, error
        return best

    def _disassemblies(self, maximum: Float[Tensor, " c"]) -> list[Integer[Tensor, " c"]]:
        """Pieces of each channel at every threshold that makes more of them than the one before."""
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
    """Assemble as many channels as disassembly into `counts` pieces adds, then disassemble.

    Parameters
    ----------
    distance : Tensor, shape=(c, c), or None
        None: disassemble only.

    Returns
    -------
    list or None
        None where there is not enough to merge.
    """
    if distance is None:
        return [EqualSplit.of(counts)]
    group = bipartite_groups(distance, counts > 1, int((counts - 1).sum()))
    if group is None:
        return None
    left = counts.new_ones(int(group.max()) + 1)
    left[group] = counts  # What is split is in a group of its own; of the others all have one piece.
    return [Merge.of(group), EqualSplit.of(left)]
