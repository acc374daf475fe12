"""Pair and single transition on integers."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from protquant.integer.linear import input_grid
from protquant.integer.norm import normalized_codes, row_tiles
from protquant.integer.operands import integer_weight
from protquant.integer.pair_stream import PairCodec, PairStream
from protquant.integer.readers import only_input
from protquant.kernels.backend import Backend
from protquant.kernels.operands import Activation, Grid
from protquant.models.trunk import Transition
from protquant.quant.modules import QuantizedLinear

__all__ = ["IntegerTransition", "Perceptron"]


class Perceptron:
    """Two linear layers with an activation between them; the hidden codes go from one to the other.

    Parameters
    ----------
    parent : nn.Module
        Has the quantized layers `up_proj` and `down_proj`.

    Raises
    ------
    NoIntegerKernelError
        Where either has no integer kernel.
    """

    def __init__(self, parent: nn.Module, backend: Backend, path: str, activation: Activation) -> None:
        self.backend = backend
        self.grid, up = only_input(parent, "up_proj", path)
        down = parent.get_submodule("down_proj")
        assert isinstance(down, QuantizedLinear)
        self.hidden_grid = input_grid(down, f"{path}.down_proj")
        self.transforms = down.transforms
        # The hidden layer is never float where its codes are what the product itself can write.
        self.direct = isinstance(self.hidden_grid, Grid) and self.transforms is None
        outs = [(self.hidden_grid, up.out_features)] if isinstance(self.hidden_grid, Grid) and self.direct else []
        self.up = backend.prepare(up, self.grid, activation, outs)
        self.down = backend.prepare(integer_weight(down, f"{path}.down_proj"), self.hidden_grid)

    def opened(self) -> "Perceptron":
        """The same with unpacked weights."""
        other = object.__new__(Perceptron)
        other.__dict__.update(self.__dict__)
        other.up, other.down = self.backend.open(self.up), self.backend.open(self.down)
        return other

    def add_to_(self, residual: Float[Tensor, "m c"], norm: nn.Module) -> None:
        """Add what comes of the normalized rows to the rows, in place."""
        backend = self.backend
        codes = normalized_codes(backend, norm, residual, self.grid)
        if self.direct:
            backend.perceptron_add_(codes, self.up, self.down, residual)
            return
        y = backend.linear(codes, self.up, torch.float32)
        hidden = backend.quantize(y if self.transforms is None else self.transforms(y), self.hidden_grid)
        backend.linear(hidden, self.down, residual=residual)


class IntegerTransition(nn.Module):
    """Twin of a quantized `Transition`."""

    def __init__(self, module: Transition, backend: Backend, path: str) -> None:
        super().__init__()
        self.norm = module.norm
        self.backend = backend
        self.perceptron = Perceptron(module, backend, path, "relu")

    def add_to_(self, x: Float[Tensor, "... c"]) -> None:
        """Add the update to `x`, contiguous, in place."""
        rows = x.view(-1, x.shape[-1])
        opened = self.perceptron.opened()
        for tile in rows.split(self.backend.tile_tokens or max(1, len(rows))):
            opened.add_to_(tile, self.norm)

    def add_to_pair(self, pair: PairStream, codec: PairCodec | None = None) -> None:
        """Add the update to the pair, which is kept by `codec` from then on."""
        opened = self.perceptron.opened()
        for rows in pair.starts(codec):
            for some in row_tiles(self.backend, len(rows), len(rows)):
                tile = rows.read(some)
                opened.add_to_(tile.flatten(0, 1), self.norm)
                rows.write(some, tile)
        pair.ends()
