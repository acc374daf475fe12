"""A linear layer that runs on integers, with floats as input and output."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from protquant.integer.operands import NoIntegerKernelError, input_grid, integer_weight
from protquant.integer.part import HoldsLayers, SupportRow
from protquant.kernels.backend import Backend
from protquant.quant.modules import QuantizedLinear

__all__ = ["IntegerLinear", "linear_twin"]


class IntegerLinear(HoldsLayers):
    """Twin of a `QuantizedLinear` that multiplies codes.

    Parameters
    ----------
    layer : QuantizedLinear
        Layer whose transforms stay in float, and come before the quantization of the input.
    name : str
        Path of the layer, for messages.

    Raises
    ------
    NoIntegerKernelError
        If weight or input has no integer kernel.
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
        layer = self.backend.unpacked(self.layer)
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


def linear_twin(layer: nn.Module, backend: Backend, path: str) -> tuple[nn.Module, SupportRow]:
    """Return the integer twin of a linear layer, or the layer itself if it has none; and its support row."""
    if not isinstance(layer, QuantizedLinear):
        return layer, SupportRow(path, "simulated", f"{path} is in float")
    try:
        return IntegerLinear(layer, backend, path), SupportRow(path, "integer", backend.kernel)
    except NoIntegerKernelError as reason:
        return layer, SupportRow(path, "simulated", str(reason))
