"""A linear layer that runs on integers, whatever lies around it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from protquant.integer.operands import NoIntegerKernelError, grid_of, integer_weight
from protquant.kernels.backend import Backend
from protquant.kernels.operands import Grid, TokenGrid
from protquant.quant.modules import QuantizedLinear

__all__ = ["IntegerLinear", "input_grid"]


def input_grid(layer: nn.Module, name: str) -> Grid | TokenGrid:
    """The grid of what a quantized linear layer reads.

    Raises
    ------
    NoIntegerKernelError
        Where it has none.
    """
    if not isinstance(layer, QuantizedLinear) or layer.input_quantizer is None:
        raise NoIntegerKernelError(f"{name}.input is in float")
    return grid_of(layer.input_quantizer.quantizer, f"{name}.input")


class IntegerLinear(nn.Module):
    """Twin of a `QuantizedLinear` that multiplies codes.

    Parameters
    ----------
    layer : QuantizedLinear
        Its transforms are kept, and applied in float before codes are made.
    name : str
        Its path, for messages.

    Raises
    ------
    NoIntegerKernelError
        Where weight or input has no integer kernel.
    """

    def __init__(self, layer: QuantizedLinear, backend: Backend, name: str) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.grid = input_grid(layer, name)
        self.transforms = layer.transforms
        self.backend = backend
        self.layer = backend.prepare(integer_weight(layer, name), self.grid)

    @property
    def nbytes(self) -> int:
        """Bytes of the weight in memory."""
        return self.layer.nbytes

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        rows = x.reshape(-1, x.shape[-1])
        layer = self.backend.open(self.layer)
        tile = self.backend.tile_tokens or len(rows)
        y = torch.empty(len(rows), self.out_features, dtype=x.dtype, device=x.device)
        for first in range(0, len(rows), max(tile, 1)):
            some = rows[first : first + tile]
            if self.transforms is not None:
                some = self.transforms(some)
            y[first : first + tile] = self.backend.linear(self.backend.quantize(some, self.grid), layer, x.dtype)
        return y.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}, {self.layer.weight.kind}, {self.backend.name}"
