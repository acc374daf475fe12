"""A float model with simulated quantization, to train scales and grids.

Training does not change the model: every call uses weights that are computed for it, and hooks quantize the
activations.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from protquant.quant.assignments import Assignments
from protquant.quant.formats import Format, Quantizer, Uniform, UniformQuantizer
from protquant.quant.observers import Statistics
from protquant.quant.ranges import Calibration
from protquant.quant.straight_through import straight_through
from protquant.quant.transforms import TransformedLinear
from protquant.quant.tuning.grids import LearnedClipping, LearnedRange
from protquant.quant.tuning.scales import EquivalentScales

__all__ = ["Student"]

_Layer = nn.Linear | nn.LayerNorm


class _Call(nn.Module):
    def __init__(self, model: nn.Module, forward: Callable[[nn.Module, Any], Any]) -> None:
        super().__init__()
        self.model, self.run = model, forward

    def forward(self, sequence: Any) -> Any:
        return self.run(self.model, sequence)


class Student:
    """A float model with fake quantization at all sites that have a format, and its trainable parameters.

    Formats that are dynamic or not uniform are simulated too, but their grids are not trained; their gradients are
    straight-through.

    Parameters
    ----------
    statistics : mapping
        Result of `calibrate` on `model`.
    calibration : Calibration
        Rule for the initial ranges.

    Attributes
    ----------
    scales : EquivalentScales
    clippings : dict
        `LearnedClipping` by site.
    ranges : dict
        `LearnedRange` by site; layers that read one tensor share one object.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: Callable[[nn.Module, Any], Any],
        assignments: Assignments,
        statistics: Mapping[str, Statistics],
        calibration: Calibration,
    ) -> None:
        self.model = model
        self._call = _Call(model, forward)
        formats = {a.site.name: a.format for a in assignments if a.format is not None}
        self.sites = {a.site.name: a.site.module for a in assignments if a.site.name in formats}
        self.scales = EquivalentScales(model, assignments)
        self.clippings: dict[str, LearnedClipping] = {}
        self._weight_formats: dict[str, Format] = {}
        self.ranges: dict[str, LearnedRange] = {}
        self._quantizers: dict[str, Quantizer] = {}
        first: dict[tuple[int, Format], LearnedRange] = {}
        for assignment in assignments:
            name, format_ = assignment.site.name, assignment.format
            seen = statistics.get(name)
            if format_ is None or (assignment.is_activation and seen is None):
                continue
            if not assignment.is_activation:
                weight: Tensor | None = self._layer(assignment.site.module).weight
                if weight is None:  # The gain was folded into other layers.
                    continue
                self._weight_formats[name] = format_
                if isinstance(format_, Uniform):
                    self.clippings[name] = LearnedClipping(format_, weight)
                continue
            key = (id(seen), format_)
            if key in first:
                self.ranges[name] = first[key]
                continue
            quantizer = format_.for_activation(seen, calibration).to(next(model.parameters()).device)
            if isinstance(quantizer, UniformQuantizer):
                self.ranges[name] = first[key] = LearnedRange(quantizer)
            else:
                self._quantizers[name] = quantizer

    def _layer(self, path: str) -> _Layer:
        layer = self.model.get_submodule(path)
        assert isinstance(layer, nn.Linear | nn.LayerNorm), path
        return layer

    def parameters(self) -> dict[str, dict[str, nn.Parameter]]:
        """Return the trainable parameters by name, in the groups `scales`, `clipping` and `ranges`."""
        clipping = {f"{site}.{n}": p for site, c in self.clippings.items() for n, p in c.named_parameters()}
        ranges: dict[str, nn.Parameter] = {}
        known: set[int] = set()
        for site, learned in self.ranges.items():
            if id(learned) not in known:
                known.add(id(learned))
                ranges |= {f"{site}.{name}": parameter for name, parameter in learned.named_parameters()}
        return {"scales": dict(self.scales.named_parameters()), "clipping": clipping, "ranges": ranges}

    def truncate(self) -> None:
        """Keep scales and steps positive; must be called after every optimizer step."""
        self.scales.truncate()
        for learned in self.ranges.values():
            learned.truncate()

    def __call__(self, sequence: Any) -> Any:
        """Return the output of `forward` for a sequence, with all weights and activations quantized."""
        return functional_call(self._call, self._weights(), (sequence,))

    def _weights(self) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = {}
        for path in sorted(self.scales.paths | {self.sites[site] for site in self._weight_formats}):
            weight, bias = self.scales.fold(path, self._layer(path))
            weights[f"model.{path}.weight"] = self._decode(f"{path}.weight", weight)
            if bias is not None:
                weights[f"model.{path}.bias"] = bias
        return weights

    def _decode(self, site: str, weight: Tensor) -> Tensor:
        if site in self.clippings:
            decoded: Tensor = self.clippings[site](weight)
            return decoded
        if format_ := self._weight_formats.get(site):
            return straight_through(format_.for_weight(weight.detach()), weight)
        return weight

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Quantize the activations of the model inside of the context."""
        handles = [self._hook(site, self.sites[site]) for site in (*self.ranges, *self._quantizers)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, site: str, path: str) -> RemovableHandle:
        learned = self.ranges.get(site)

        def quantize(x: Tensor) -> Tensor:
            return straight_through(self._quantizers[site], x) if learned is None else learned(x)

        def before(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return quantize(inputs[0]), *inputs[1:]

        def after(_module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            return quantize(output)

        module = self.model.get_submodule(path)
        if isinstance(module, TransformedLinear):
            return module.transforms.register_forward_hook(after)
        return module.register_forward_pre_hook(before)

    @torch.no_grad()
    def export(self, assignments: Assignments, reason: str) -> None:
        """Fold the scales into the model, and set the trained grids in `assignments`."""
        for path in self.scales.paths:
            layer = self._layer(path)
            weight, bias = self.scales.fold(path, layer)
            layer.weight.copy_(weight)
            if bias is not None:
                layer.bias.copy_(bias)
        for site, clipping in self.clippings.items():
            assignments.set_quantizer(site, clipping.freeze(self._layer(self.sites[site]).weight), reason)
        for site, learned in self.ranges.items():
            assignments.set_quantizer(site, learned.freeze(), reason)
        for site, quantizer in self._quantizers.items():
            assignments.set_quantizer(site, copy.deepcopy(quantizer), reason)
