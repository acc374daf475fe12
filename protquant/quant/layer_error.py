"""Errors that formats cause in the outputs of layers that share an input, on a sample of calibration vectors."""

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


def activation_quantizer(format_: Format, rows: Float[Tensor, "n c"], extremes: Float[Tensor, "m c"]) -> Quantizer:
    """Return the quantizer of a format for a sample of rows, and for the `extremes` of all rows."""
    if not format_.needs_statistics:
        return format_.for_activation(None, _MINMAX)
    # Equal steps depend on the range alone, so that the sample need not be sorted.
    seen = extremes if isinstance(format_, Uniform) else torch.cat((rows, extremes))
    observer = Observer("sample", sample_size=seen.numel())
    observer.update(seen)
    return format_.for_activation(observer.statistics(), _MINMAX).to(rows.device)


def relative_error(outputs: Float[Tensor, "n o"], reference: Float[Tensor, "n o"]) -> float:
    """Return the squared error of all outputs, divided by the sum of their squares."""
    return ((outputs - reference).square().sum() / reference.square().sum().clamp(min=1e-30)).item()


def kl_divergence(outputs: Float[Tensor, "n o"], reference: Float[Tensor, "n o"]) -> float:
    """Return the Kullback-Leibler divergence between softmaxes over the outputs, in nats, averaged over rows."""
    expected, found = reference.double().log_softmax(-1), outputs.double().log_softmax(-1)
    return (expected.exp() * (expected - found)).sum(-1).mean().item()


class LayerOutputs:
    """Outputs of the layers of a link on a sample of rows, in float and quantized with trial transforms.

    Static ranges cover all calibration vectors, not only the sample: their extremes are transformed as well.

    Parameters
    ----------
    evidence : Evidence
        Statistics of the layers' input, before `transforms`.
    readers : mapping
        Layers by path. Biases are ignored: quantization does not change them.
    num_rows : int
        Number of rows of the sample to use.
    """

    def __init__(self, evidence: Evidence, readers: Mapping[str, nn.Linear], num_rows: int = 512) -> None:
        self._rows = evidence.rows[:num_rows]
        self._extremes = torch.stack((evidence.minimum, evidence.maximum)).to(self._rows)
        self._weights = {path: reader.weight.detach().to(self._rows) for path, reader in readers.items()}

    @cached_property
    def float_outputs(self) -> dict[str, Float[Tensor, "n o"]]:
        """Float outputs by path of reader."""
        return {path: self._rows @ weight.T for path, weight in self._weights.items()}

    def quantized(
        self,
        transforms: Sequence[InputTransform],
        formats: Mapping[str, tuple[Format | None, Format | None]],
    ) -> dict[str, Float[Tensor, "n o"]]:
        """Return the outputs of the readers in `formats`, which has the formats of weight and input by path."""
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
        """Return the relative error of the outputs, averaged over the readers."""
        outputs = self.quantized(transforms, formats)
        return sum(relative_error(y, self.float_outputs[path]) for path, y in outputs.items()) / max(len(outputs), 1)
