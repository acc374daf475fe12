"""Trainable scales per channel that do not change the function of the float model."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from protquant.quant.assignments import Assignments
from protquant.quant.transforms import LinkLayers
from protquant.topology import Link, find_links, find_products

__all__ = ["EquivalentScales", "foldable_links"]

_SMALLEST = 1e-2


@dataclass(frozen=True)
class _Factor:
    """Effect of one scale on a layer: its outputs (rows) or inputs (columns) are multiplied or divided by the scale."""

    parameter: str
    columns: bool
    divide: bool
    channels: tuple[int, ...] | None  # indices of the layer's channels; None: all
    elements: tuple[int, ...] | None  # index of the scale's element for each channel; None: in order


def foldable_links(model: nn.Module, assignments: Assignments) -> list[Link]:
    """Return the links of quantized layers whose scales can be folded into a LayerNorm or linear layer."""
    return [
        link
        for link in find_links(model)
        if LinkLayers(model, link).writer is not None and _any_quantized(assignments, link.readers)
    ]


def _any_quantized(assignments: Assignments, linears: Iterable[str]) -> bool:
    return any(assignments.weight_format(path) or assignments.input_format(path) for path in linears)


class EquivalentScales(nn.Module):
    """Scales per channel that do not change the function of the float model (LET); all are 1 at first.

    There is one scale for every link whose channels a LayerNorm or linear layer writes, and one for every product.
    Links through GELU have none: GELU does not commute with a scale, so the scale could not be folded. Links of float
    layers have none either.
    """

    def __init__(self, model: nn.Module, assignments: Assignments) -> None:
        super().__init__()
        self._factors: dict[str, list[_Factor]] = {}
        for link in foldable_links(model, assignments):
            layers = LinkLayers(model, link)
            assert layers.writer is not None
            assert link.writer is not None
            name = self._new(layers.readers[link.readers[0]].in_features, layers.writer.weight)
            self._add(link.writer, _Factor(name, False, True, link.rows, None))
            for reader in link.readers:
                self._add(reader, _Factor(name, True, False, None, None))
        for product in find_products(model):
            if not _any_quantized(assignments, (product.left, product.right)):
                continue
            rows, tied = torch.arange(len(product.left_rows)), product.tied
            # Channels that rotary embeddings mix share one element.
            elements = rows // (2 * tied) * tied + rows % tied if tied else rows
            name = self._new(int(elements.max()) + 1, model.get_submodule(product.left).weight)
            shared = tuple(elements.tolist())
            self._add(product.left, _Factor(name, False, False, product.left_rows, shared))
            self._add(product.right, _Factor(name, False, True, product.right_rows, shared))

    def _new(self, size: int, like: Tensor | nn.Module) -> str:
        assert isinstance(like, Tensor)
        name = f"scale_{len(self._parameters)}"
        self.register_parameter(name, nn.Parameter(torch.ones(size, dtype=like.dtype, device=like.device)))
        return name

    def _add(self, path: str, factor: _Factor) -> None:
        self._factors.setdefault(path, []).append(factor)

    @property
    def paths(self) -> set[str]:
        """Paths of the scaled layers."""
        return set(self._factors)

    @torch.no_grad()
    def truncate(self) -> None:
        """Raise scales that are too near to zero."""
        for scale in self.parameters():
            scale.clamp_(min=_SMALLEST)

    def fold(self, path: str, layer: nn.Linear | nn.LayerNorm) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias of a layer, multiplied by the scales."""
        weight: Tensor = layer.weight
        bias: Tensor | None = layer.bias
        rows, columns = self._product(path, False, len(weight)), self._product(path, True, weight.shape[-1])
        if rows is not None:
            weight = weight * (rows[:, None] if weight.ndim > 1 else rows)
            bias = None if bias is None else bias * rows
        return (weight if columns is None else weight * columns), bias

    def _product(self, path: str, columns: bool, size: int) -> Tensor | None:
        product: Tensor | None = None
        for factor in self._factors.get(path, []):
            if factor.columns != columns:
                continue
            scale: Tensor = self.get_parameter(factor.parameter)
            if factor.elements is not None:
                scale = scale[list(factor.elements)]
            if factor.divide:
                scale = scale.reciprocal()
            if factor.channels is not None:
                scale = scale.new_ones(size).index_put((torch.tensor(factor.channels, device=scale.device),), scale)
            product = scale if product is None else product * scale
        return product
