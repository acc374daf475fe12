"""FlattenQuant (Zhang et al. 2024): the largest channels are split into several, so that one scale fits a tensor.

This is a reconstruction from the abstract of the paper, in which every choice is a setting. The drift of ESM-2 8M's
contacts from the float model decided the defaults (on 9 of the 50 chains unless stated otherwise):

- smoothing: in 8 bits per tensor the drift was 0.0040 with alpha 0.5 and 0.0031 without smoothing (25 chains), because
  it moves outliers into weights with a single scale. With weights in 4 bits per row it was 0.0065 with alpha 0.25 and
  0.0060 without. So smoothing is off.
- headroom: with thresholds for the maxima of calibration, 8 bits were worse than rounding to nearest (0.0031 against
  0.0027 on 25 chains), because channels of other proteins were clipped. With headroom 1.25, 1.5 and 2 the drift was
  0.0021, 0.0020 and 0.0019 (rounding to nearest: 0.0025).
- mixed 4 and 8 bits, with headroom 1.5 and gamma 0.05: the drift was 0.0084 with 19 % of the compute in 4 bits with
  `saturating`, 0.0097 with 32 % with `equal`, 0.0087 with 23 % with `fence`, and 0.0085 with 20 % without `weights`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import AfterValidator, Field
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.quant.assignments import Assignments
from protquant.quant.channel_splitting import EqualSplit, SaturatingSplit, WeightSplit, pieces_at, thresholds_within
from protquant.quant.evidence import Evidence
from protquant.quant.formats import Format, Uniform
from protquant.quant.layer_error import LayerOutputs, kl_divergence, relative_error
from protquant.quant.settings import Count, Rate, Share
from protquant.quant.steps.base import LinkTransform, register_step
from protquant.quant.transforms import InputTransform, LinkLayers

__all__ = ["FlattenQuant", "box_plot_fence"]

_SMALLEST = 1e-5
_DIVERGENCES = {"error": relative_error, "kl": kl_divergence}
# Channels in one operation of the integer matrix units of NVIDIA GPUs, by bits.
_TILES = {4: 64, 8: 32}

_Formats = Mapping[str, tuple[Format | None, Format | None]]


def box_plot_fence(maximum: Float[Tensor, " c"]) -> float:
    """Return Q3 + 1.5 IQR of the maxima of channels, above which a channel is an outlier (Tukey 1977)."""
    first, third = maximum.double().quantile(torch.tensor([0.25, 0.75]).to(maximum.device).double()).tolist()
    return third + 1.5 * (third - first)


def _ascending(bits: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(bits))


@register_step("flattenquant")
@dataclass(frozen=True, kw_only=True)
class FlattenQuant(LinkTransform):
    """Smooth channels, split those above a threshold into several, and choose the bits of every layer.

    Attributes
    ----------
    alpha : float
        Exponent of smoothing, see SmoothQuant; 0 means no smoothing.
    split : str
        How activation channels are split: `saturating`, where all pieces but one are exact, or `equal`.
    threshold : str
        `output_error`: the threshold with the least output error, for any number of further channels within `budget`.
        `fence`: the box-plot fence of the maxima of channels, or the lowest threshold within the budget.
    budget : float
        Maximal number of further channels, for activations and weights together, as a share of the input channels.
    headroom : float
        Factor for the maxima of calibration. After splitting, a channel that exceeds its maximum of calibration may be
        clipped, where in the unsplit tensor it had the range of the largest channel.
    candidates : int
        Number of thresholds that `output_error` tries for activations, and for weights.
    weights : bool
        Whether to split columns of the weight as well.
    tiles : bool
        Whether to pad the channels with zeros to a multiple of the GPU's matrix tiles (64 channels in 4 bits, otherwise
        32). The zeros are not part of the budget, but count in the effective bits. Off by default: it changes no
        output.
    bits : tuple of int
        Bits to choose from for the weight and the input of every layer: the fewest with a divergence below `gamma`, or
        else the most. If empty, layers have the formats of the recipe.
    gamma : float
        Limit of the divergence.
    divergence : str
        `error`: squared error of the layer's outputs, divided by the sum of their squares. `kl`: Kullback-Leibler
        divergence of the softmax over its outputs.

    Raises
    ------
    ProtquantError
        For an invalid setting; `apply` raises it if `bits` is set and a format is not uniform.
    """

    alpha: Share = 0.0
    split: Literal["saturating", "equal"] = "saturating"
    threshold: Literal["output_error", "fence"] = "output_error"
    budget: Rate = 0.1
    headroom: Annotated[float, Field(ge=1)] = 2.0
    candidates: Count = 16
    weights: bool = True
    tiles: bool = False
    bits: Annotated[tuple[int, ...], AfterValidator(_ascending)] = ()
    gamma: float = 0.05
    divergence: Literal["error", "kl"] = "error"

    def apply(self, link: LinkLayers, evidence: Evidence, assignments: Assignments) -> None:
        readers = {path: (assignments.weight_format(path), assignments.input_format(path)) for path in link.readers}
        formats = {path: pair for path, pair in readers.items() if any(pair) and self.is_for(path)}
        if self.alpha:
            evidence = self._smooth(link, evidence)
        outputs = LayerOutputs(evidence, link.readers)
        # Layers that read one tensor share one split. It is chosen for the fewest bits, which need it most.
        fewest = formats
        if self.bits:
            fewest = {path: self._with_bits(path, pair, self.bits[0]) for path, pair in formats.items()}
        transforms = self._flatten_activations(self.headroom * evidence.absolute_maximum, outputs, fewest)
        if self.weights:
            transforms = self._flatten_weights(link, transforms, outputs, fewest)
        if self.bits:
            self._choose_bits(formats, outputs, transforms, assignments)
        for transform in transforms:
            link.prepend(transform)
        if self.tiles:
            self._fill_tiles(link, assignments)

    def _smooth(self, link: LinkLayers, evidence: Evidence) -> Evidence:
        """Divide the channels of `link` by SmoothQuant's scale; return the statistics of the scaled input."""
        activation = evidence.absolute_maximum.clamp(min=_SMALLEST)
        weight = link.absolute_weight_maximum().clamp(min=_SMALLEST).to(activation)
        scale = (activation**self.alpha / weight ** (1 - self.alpha)).clamp(min=_SMALLEST)
        link.scale(scale)
        return replace(
            evidence,
            mean=evidence.mean / scale,
            absolute_mean=evidence.absolute_mean / scale,
            minimum=evidence.minimum / scale,
            maximum=evidence.maximum / scale,
            rows=evidence.rows / scale.to(evidence.rows),
            moments=evidence.gram / scale / scale[:, None],
            vectors=(),
        )

    def _flatten_activations(
        self, maximum: Float[Tensor, " c"], outputs: LayerOutputs, formats: _Formats
    ) -> list[InputTransform]:
        trials: list[list[InputTransform]] = []
        for threshold in self._thresholds(maximum, int(self.budget * len(maximum))):
            counts = pieces_at(maximum, threshold)
            equal = self.split == "equal"
            trials.append([EqualSplit.of(counts) if equal else SaturatingSplit.of(counts, threshold)])
        return self._best([*trials, []], outputs, formats)

    def _flatten_weights(
        self, link: LinkLayers, before: list[InputTransform], outputs: LayerOutputs, formats: _Formats
    ) -> list[InputTransform]:
        """Return the transforms `before`, followed by a split of weight columns within the rest of the budget."""
        columns = []
        for reader in link.readers.values():
            weight = reader.weight.detach()
            for transform in before:
                weight = transform.columns(weight)
            columns.append(weight.abs().amax(0) / weight.abs().amax().clamp(min=_SMALLEST))
        maximum = torch.stack(columns).amax(0)
        channels = next(iter(link.readers.values())).in_features
        trials = [
            [*before, WeightSplit.of(pieces_at(maximum, threshold), threshold)]
            for threshold in self._thresholds(maximum, int(self.budget * channels) - (len(maximum) - channels))
        ]
        return self._best([*trials, before], outputs, formats)

    def _thresholds(self, maximum: Float[Tensor, " c"], extra: int) -> list[float]:
        """Return thresholds to try, each of which adds at least one and at most `extra` channels."""
        within = thresholds_within(maximum, extra)[1:]
        if not within:
            return []
        if self.threshold == "fence":
            fence = max(box_plot_fence(maximum), within[-1])
            return [fence] if fence < maximum.max() else []
        wanted = torch.linspace(0, len(within) - 1, min(self.candidates, len(within))).round().long()
        return [within[i] for i in wanted.unique().tolist()]

    def _fill_tiles(self, link: LinkLayers, assignments: Assignments) -> None:
        given = (
            format_of(path)
            for path in link.readers
            for format_of in (assignments.weight_format, assignments.input_format)
        )
        bits = min((format_.code_bits for format_ in given if format_ is not None), default=8)
        channels = next(iter(link.readers.values())).in_features
        multiple = _TILES[4] if bits <= 4 else _TILES[8]
        if channels % multiple:
            link.prepend(EqualSplit.of(torch.ones(channels, dtype=torch.long), multiple))

    def _best(
        self, trials: list[list[InputTransform]], outputs: LayerOutputs, formats: _Formats
    ) -> list[InputTransform]:
        """Return the trial with the least error; with `fence` return the first."""
        if self.threshold == "fence" or len(trials) == 1:
            return trials[0]
        return min(trials, key=lambda transforms: outputs.error(transforms, formats))

    def _with_bits(
        self, path: str, pair: tuple[Format | None, Format | None], bits: int
    ) -> tuple[Format | None, Format | None]:
        weight, activation = (None if format_ is None else self._of_width(path, format_, bits) for format_ in pair)
        return weight, activation

    @staticmethod
    def _of_width(path: str, format_: Format, bits: int) -> Uniform:
        if not isinstance(format_, Uniform):
            raise ProtquantError(
                f"flattenquant chooses bits of uniform formats, and {path} has {format_.label}; leave out the setting "
                "bits, or the layer"
            )
        return replace(format_, bits=bits)

    def _choose_bits(
        self, formats: _Formats, outputs: LayerOutputs, transforms: list[InputTransform], assignments: Assignments
    ) -> None:
        diverge = _DIVERGENCES[self.divergence]
        for path, pair in formats.items():
            for bits in self.bits:
                chosen = self._with_bits(path, pair, bits)
                divergence = diverge(outputs.quantized(transforms, {path: chosen})[path], outputs.float_outputs[path])
                if divergence < self.gamma:
                    break
            reason = f"flattenquant: {self.divergence} {divergence:.2g} in {bits} bits, {self.gamma:g} let pass"
            for site, format_ in zip((f"{path}.weight", f"{path}.input"), chosen, strict=True):
                if format_ is not None:
                    assignments.set_format(site, format_, reason)
