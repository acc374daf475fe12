"""Copies of a model's blocks with simulated quantization and trainable low-rank additions to their weights."""

import math
from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from protquant.quant.assignments import Assignments
from protquant.quant.formats import Format, Quantizer
from protquant.quant.straight_through import straight_through
from protquant.quant.transforms import TransformedLinear

__all__ = ["LowRankStudent"]


class _Rounded(nn.Module):
    """Parametrization that rounds a weight to the grid of a format."""

    def __init__(self, format_: Format) -> None:
        super().__init__()
        self.format_ = format_

    def forward(self, weight: Tensor) -> Tensor:
        return straight_through(self.format_.for_weight(weight.detach()), weight)


class _LowRank(nn.Module):
    """Parametrization that adds B A to a weight W, and rounds to the grid of a format.

    Attributes
    ----------
    down, up : Parameter, shape=(rank, in) and (out, rank)
        A, with Kaiming initialization, and B, which is zero at first.
    merged : bool
        Whether the weight is Q(W + s B A), as in the final model, or Q(W) + s B A.
    """

    def __init__(
        self,
        weight: Float[Tensor, "o i"],
        format_: Format | None,
        rank: int,
        scaling: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.format_, self.scaling, self.merged = format_, scaling, True
        down = torch.empty(rank, weight.shape[1])
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        self.down = nn.Parameter(down.to(weight))
        self.up = nn.Parameter(torch.zeros(len(weight), rank).to(weight))

    def addition(self) -> Float[Tensor, "o i"]:
        return self.scaling * (self.up @ self.down)

    def forward(self, weight: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
        if self.format_ is None or self.merged:
            weight = weight + self.addition()
        if self.format_ is not None:
            weight = straight_through(self.format_.for_weight(weight.detach()), weight)
        return weight if self.format_ is None or self.merged else weight + self.addition()


class LowRankStudent:
    """Modules with simulated quantization at all sites that have a format.

    Parameters
    ----------
    modules : mapping
        Copies of modules of the model, by path; they are changed.
    assignments : Assignments
        Assignments of the model's sites.
    quantizers : mapping
        Quantizers of activations, by site.
    rank : int
        Rank of the additions.
    scaling : float
        Factor of the product B A.
    vectors : bool
        Whether to train biases and gains as well.
    generator : torch.Generator
        Source of the random initial factors.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        assignments: Assignments,
        quantizers: Mapping[str, Quantizer],
        *,
        rank: int,
        scaling: float,
        vectors: bool,
        generator: torch.Generator,
    ) -> None:
        self._additions: dict[str, _LowRank] = {}
        self._vectors: dict[str, nn.Parameter] = {}
        for root, copied in modules.items():
            copied.requires_grad_(False)
            layers = dict(_below(root, copied))
            if vectors:
                self._vectors |= {
                    f"{path}.{name}": parameter
                    for path, layer in layers.items()
                    for name, parameter in layer.named_parameters(recurse=False)
                    if parameter.ndim == 1
                }
            for assignment in assignments:
                site, format_ = assignment.site, assignment.format
                if format_ is None or site.module not in layers:
                    continue
                layer = layers[site.module]
                if site.name in quantizers:
                    _quantize_input(layer, quantizers[site.name])
                elif site.kind == "norm_gain":
                    register_parametrization(layer, "weight", _Rounded(format_))
            for path, layer in layers.items():
                # Layers without sites, such as heads, have no formats.
                if isinstance(layer, nn.Linear) and any(_formats(assignments, path)):
                    addition = _LowRank(layer.weight, assignments.weight_format(path), rank, scaling, generator)
                    register_parametrization(layer, "weight", addition)
                    self._additions[path] = addition
        for vector in self._vectors.values():
            vector.requires_grad_(True)

    def parameters(self) -> dict[str, dict[str, nn.Parameter]]:
        """Return the trainable parameters by name, in the groups `additions` and `vectors`."""
        additions = {f"{path}.{n}": p for path, each in self._additions.items() for n, p in each.named_parameters()}
        return {"additions": additions, "vectors": self._vectors}

    def set_merged(self, merged: bool) -> None:
        """Choose whether weights are quantized with or without their additions."""
        for addition in self._additions.values():
            addition.merged = merged

    @torch.no_grad()
    def export(self, model: nn.Module) -> None:
        """Add the trained additions to the weights of `model`, and copy trained biases and gains."""
        for path, addition in self._additions.items():
            weight = model.get_parameter(f"{path}.weight")
            weight.add_(addition.addition())
        for name, vector in self._vectors.items():
            model.get_parameter(name).copy_(vector)


def _below(root: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, layer in module.named_modules():
        yield ".".join(part for part in (root, path) if part), layer


def _formats(assignments: Assignments, path: str) -> tuple[Format | None, Format | None]:
    try:
        return assignments.weight_format(path), assignments.input_format(path)
    except KeyError:
        return None, None


def _quantize_input(layer: nn.Module, quantizer: Quantizer) -> None:
    def before(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return straight_through(quantizer, inputs[0]), *inputs[1:]

    def after(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return straight_through(quantizer, output)

    if isinstance(layer, TransformedLinear):
        layer.transforms.register_forward_hook(after)
    else:
        layer.register_forward_pre_hook(before)
