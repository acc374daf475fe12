"""The single representation of the trunk on integers, and its exchange with the pair."""

import torch
from torch import nn

from protquant.integer.attention import GatedAttention
from protquant.integer.norm import normalized_codes, row_tiles
from protquant.integer.operands import only_input, reordered, shared_input
from protquant.integer.pair_stream import PairCodec
from protquant.integer.part import BlockState, HoldsLayers, SupportRow
from protquant.kernels.backend import Backend
from protquant.models.trunk import PairToBias, SingleAttention, SingleToPair

__all__ = ["IntegerPairToBias", "IntegerSingleAttention", "IntegerSingleToPair"]


class IntegerPairToBias(HoldsLayers):
    """Twin of a quantized `PairToBias`: sets the bias of the block's state."""

    def __init__(self, module: PairToBias, backend: Backend, path: str) -> None:
        super().__init__()
        self.norm, self.backend = module.norm, backend
        self.grid, proj = only_input(module, "proj", path)
        self.proj = backend.prepare(proj, self.grid)
        self.rows = [SupportRow(path, "integer", backend.kernel)]

    def update_(self, state: BlockState) -> None:
        batch, length = state.pair.shape[:2]
        proj = self.backend.unpacked(self.proj)
        bias = torch.empty(batch, length, length, proj.weight.out_features, device=state.pair.device)
        for index, pair in enumerate(state.pair.begin(None)):
            for rows in row_tiles(self.backend, length, length):
                codes = normalized_codes(self.backend, self.norm, pair.read(rows).flatten(0, 1), self.grid)
                bias[index, rows] = self.backend.linear(codes, proj).unflatten(0, (-1, length))
        state.bias = bias.permute(0, 3, 1, 2)


class IntegerSingleAttention(nn.Module):
    """Twin of a quantized `SingleAttention` and of the norm before it."""

    def __init__(self, module: SingleAttention, backend: Backend, path: str, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.backend = norm, backend
        self.grid, weights = shared_input(module, ("qkv_proj", "gate_proj"), path)
        # Reorder outputs from queries, keys and values of each head to all queries, all keys, all values.
        order = torch.arange(weights["qkv_proj"].out_features).view(module.num_heads, 3, -1).transpose(0, 1).flatten()
        qkv = reordered(weights["qkv_proj"], order.tolist())
        self.attention = GatedAttention(
            module, qkv, weights["gate_proj"], self.grid, backend, path, heads=module.num_heads, scale=module.scale
        )
        self.rows = [SupportRow(path, "integer", backend.kernel)]

    def update_(self, state: BlockState) -> None:
        attention, bias = self.attention.unpacked(), state.take_bias()
        for index, x in enumerate(state.single):
            codes = normalized_codes(self.backend, self.norm, x, self.grid)
            valid = None if state.mask is None else state.mask[index : index + 1]
            attention.add_to_(codes, x[None], self.backend.attention_bias(bias[index], attention.grids), valid)


class IntegerSingleToPair(HoldsLayers):
    """Twin of a quantized `SingleToPair`: products and differences are quantized row by row.

    After the update, `codec` stores the pair.
    """

    def __init__(self, module: SingleToPair, backend: Backend, path: str, codec: PairCodec | None = None) -> None:
        super().__init__()
        self.norm, self.backend, self.codec = module.norm, backend, codec
        self.grid, proj = only_input(module, "proj", path)
        self.proj = backend.prepare(proj, self.grid)
        self.out_grid, out = only_input(module, "out_proj", path)
        self.out_proj = backend.prepare(out, self.out_grid)
        self.rows = [SupportRow(path, "integer", backend.kernel)]

    def update_(self, state: BlockState) -> None:
        backend, length, layers = self.backend, state.single.shape[1], self.unpacked()
        for x, pair in zip(state.single, state.pair.begin(self.codec), strict=True):
            q, k = backend.linear(normalized_codes(backend, self.norm, x, self.grid), layers.proj).chunk(2, dim=-1)
            for rows in row_tiles(backend, length, length):
                tile = pair.read(rows)
                codes = backend.outer_codes(q, k[rows], self.out_grid)
                backend.linear(codes, layers.out_proj, residual=tile.flatten(0, 1))
                pair.write(rows, tile)
        state.pair.commit()
