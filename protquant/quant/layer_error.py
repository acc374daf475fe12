"""What the formats of layers that share an input do to their outputs, on the sample of what calibration saw."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from protquant.quant.evidence import Evidence
from protquant.quant.formats import Format, Quantizer, Uniform
from protquant.quant.observers import Observer
from protquant.quant.ranges import Calibration
from protquant.quant.transforms import InputTransform

__all__ = ["LayerOutputs", "activation_quantizer", "kl_divergence", "relative_error"]

_MINMAX = Calibration(range="minmax")


def activation_quantizer(form: Format, rows: Float[Tensor, "n c"], extremes: Float[Tensor, "m c"]) -> Quantizer:
    """`form` fitted to all of `rows`, and to `extremes` that other rows have."""
    if not form.needs_statistics:
        return form.for_activation(None, _MINMAX)
    # Of equal steps the range decides alone, and no sample need be sorted.
    seen = extremes if isinstance(form, Uniform) else torch.cat((rows, extremes))
    observer = Observer("sample", sample_size=seen.numel())
    observer.update(seen)
    return form.for_activation(observer.statistics(), _MINMAX).to(rows.device)


def relative_error(outputs: Float[Tensor, "n o"], reference: Float[Tensor, "n o"]) -> float:
    """Squared error of all outputs, as a share of their squares."""
    return ((outputs - reference).square().sum() / reference.square().sum().clamp(min=1e-30)).item()


def kl_divergence(outputs: Float[Tensor, "n o"], reference: Float[Tensor, "n o"]) -> float:
    """Mean over rows of the divergence between softmaxes over the outputs, in nats."""
    expected, found = reference.double().log_softmax(-1), outputs.double().log_softmax(-1)
    return (expected.exp() * (expected - found)).sum(-1).mean().item()


class LayerOutputs:
    """Outputs of the layers of a link on a sample of rows, in float and quantized, behind transforms to be tried.

    Static ranges are those of all that calibration saw, not of the sample: its extremes go through the transforms too.

    Parameters
    ----------
    evidence : Evidence
        Of what the layers read, before `transforms`.
    readers : mapping
        Layers by path. Biases are left out: they are what they are.
    num_rows : int
        How many rows of the sample to use.
    """

    def __init__(self, evidence: Evidence, readers: Mapping[str, nn.Linear], num_rows: int = 512) -> None:
        self._rows = evidence.rows[:num_rows]
        self._extremes = torch.stack((evidence.minimum, evidence.maximum)).to(self._rows)
        self._weights = {path: reader.weight.detach().to(self._rows) for path, reader in readers.items()}

    @cached_property
    def float_outputs(self) -> dict[str, Float[Tensor, "n o"]]:
        """By path of reader."""
        return {path: self._rows @ weight.T for path, weight in self._weights.items()}

    def quantized(
        self,
        transforms: Sequence[InputTransform],
        formats: Mapping[str, tuple[Format | None, Format | None]],
    ) -> dict[str, Float[Tensor, "n o"]]:
        """Outputs of the readers in `formats`, which says of each the formats of its weight and its input."""
        rows, extremes = self._rows, self._extremes
        for transform in transforms:
            rows, extremes = transform(rows), transform(extremes)
        inputs: dict[Format | None, Tensor] = {None: rows}
        outputs = {}
        for path, (weight_format, input_format) in formats.items():
            weight = self._weights[path]
            for transform in transforms:
                weight = transform.columns(weight)
            if weight_format is not None:
                weight = weight_format.for_weight(weight)(weight)
            if input_format not in inputs:
                assert input_format is not None
                inputs[input_format] = activation_quantizer(input_format, rows, extremes)(rows)
            outputs[path] = inputs[input_format] @ weight.T
        return outputs

    def error(
        self,
        transforms: Sequence[InputTransform],
        formats: Mapping[str, tuple[Format | None, Format | None]],
    ) -> float:
        """Mean over the readers of the relative error of their outputs."""
        outputs = self.quantized(transforms, formats)
        return sum(relative_error(y, self.float_outputs[path]) for path, y in outputs.items()) / max(len(outputs), 1)
