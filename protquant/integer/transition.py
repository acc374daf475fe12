"""Single and pair transition on integers, and the feed-forward network that they share."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from protquant.integer.norm import normalized_codes, row_tiles
from protquant.integer.operands import input_grid, integer_weight, only_input
from protquant.integer.pair_stream import PairCodec
from protquant.integer.part import BlockState, HoldsLayers, SupportRow
from protquant.kernels.backend import Backend
from protquant.kernels.operands import Activation, Grid
from protquant.models.trunk import Transition
from protquant.quant.modules import QuantizedLinear

__all__ = ["IntegerPairTransition", "IntegerSingleTransition", "Perceptron"]


class Perceptron(HoldsLayers):
    """Two linear layers with an activation between them; the output codes of the first are the input of the second.

    Parameters
    ----------
    parent : nn.Module
        Module with the quantized layers `up_proj` and `down_proj`.

    Raises
    ------
    NoIntegerKernelError
        If either layer has no integer kernel.
    """

    def __init__(self, parent: nn.Module, backend: Backend, path: str, activation: Activation) -> None:
        super().__init__()
        self.backend = backend
        self.grid, up = only_input(parent, "up_proj", path)
        down = parent.get_submodule("down_proj")
        assert isinstance(down, QuantizedLinear)
        self.hidden_grid = input_grid(down, f"{path}.down_proj")
        self.transforms = down.transforms
        # If the first product can write codes, the hidden layer is never float.
        self.direct = isinstance(self.hidden_grid, Grid) and self.transforms is None
        outs = [(self.hidden_grid, up.out_features)] if isinstance(self.hidden_grid, Grid) and self.direct else []
        self.up = backend.prepare(up, self.grid, activation, outs)
        self.down = backend.prepare(integer_weight(down, f"{path}.down_proj"), self.hidden_grid)

    def add_to_(self, residual: Float[Tensor, "m c"], norm: nn.Module) -> None:
        """Add the output for the normalized rows to the rows in place."""
        backend = self.backend
        codes = normalized_codes(backend, norm, residual, self.grid)
        if self.direct:
            backend.perceptron_add_(codes, self.up, self.down, residual)
            return
        y = backend.linear(codes, self.up, torch.float32)
        hidden = backend.quantize(y if self.transforms is None else self.transforms(y), self.hidden_grid)
        backend.linear(hidden, self.down, residual=residual)


class _IntegerTransition(nn.Module):
    def __init__(self, module: Transition, backend: Backend, path: str) -> None:
        super().__init__()
        self.norm, self.backend = module.norm, backend
        self.perceptron = Perceptron(module, backend, path, "relu")
        self.rows = [SupportRow(path, "integer", backend.kernel)]


class IntegerSingleTransition(_IntegerTransition):
    """Twin of a quantized `Transition` of the single."""

    def update_(self, state: BlockState) -> None:
        rows = state.single.view(-1, state.single.shape[-1])
        perceptron = self.perceptron.unpacked()
        for tile in rows.split(self.backend.tile_tokens or max(1, len(rows))):
            perceptron.add_to_(tile, self.norm)


class IntegerPairTransition(_IntegerTransition):
    """Twin of a quantized `Transition` of the pair; after the update, `codec` stores the pair."""

    def __init__(self, module: Transition, backend: Backend, path: str, codec: PairCodec | None = None) -> None:
        super().__init__(module, backend, path)
        self.codec = codec

    def update_(self, state: BlockState) -> None:
        perceptron = self.perceptron.unpacked()
        for pair in state.pair.begin(self.codec):
            for rows in row_tiles(self.backend, len(pair), len(pair)):
                tile = pair.read(rows)
                perceptron.add_to_(tile.flatten(0, 1), self.norm)
                pair.write(rows, tile)
        state.pair.commit()
