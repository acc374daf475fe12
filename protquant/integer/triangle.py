"""Triangle updates of the pair representation on integers (Algorithms 11-14 of Jumper et al. 2021).

Inputs of linear layers, operands of triangle multiplication, queries, keys and values are codes. The pair is updated in
place, a few rows at a time, so that no float tensor of its size is made.
"""

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from protquant.integer.attention import GatedAttention
from protquant.integer.norm import normalized_codes, row_tiles
from protquant.integer.operands import NoIntegerKernelError, only_input, shared_input, stacked, tap_grid
from protquant.integer.pair_stream import PairCodec, PairRows
from protquant.integer.part import BlockState, HoldsLayers, SupportRow
from protquant.kernels.backend import Backend
from protquant.kernels.operands import Codes8
from protquant.models.triangle import TriangleAttention, TriangleMultiplication

__all__ = ["IntegerTriangleAttention", "IntegerTriangleMultiplication"]


class IntegerTriangleMultiplication(HoldsLayers):
    """Twin of a quantized `TriangleMultiplication`; after the update, `codec` stores the pair.

    Raises
    ------
    NoIntegerKernelError
        If a layer or product of it has no integer kernel.
    """

    def __init__(
        self, module: TriangleMultiplication, backend: Backend, path: str, codec: PairCodec | None = None
    ) -> None:
        super().__init__()
        self.direction, self.backend, self.codec = module.direction, backend, codec
        self.norm, self.out_norm = module.norm, module.out_norm
        if type(module.update) is not nn.Identity:
            raise NoIntegerKernelError(f"{path}.update rotates what is added to the pair")
        names = ("left_proj", "right_proj", "left_gate", "right_gate", "out_gate")
        self.grid, weights = shared_input(module, names, path)
        grids = tap_grid(module.left, f"{path}.left"), tap_grid(module.right, f"{path}.right")
        if grids[0] is None or grids[1] is None:
            raise NoIntegerKernelError(f"{path}.left and right are in float")
        self.grids = grids[0], grids[1]
        self.left_proj, self.right_proj, self.left_gate, self.right_gate, self.out_gate = (
            backend.prepare(weights[name], self.grid) for name in names
        )
        self.product_grid, out = only_input(module, "out_proj", path)
        self.out_proj = backend.prepare(out, self.product_grid)
        self.channels = module.left_proj.out_features
        self.rows = [SupportRow(path, "integer", backend.kernel)]

    def update_(self, state: BlockState) -> None:
        layers, mask = self.unpacked(), state.pair_mask
        for index, pair in enumerate(state.pair.begin(self.codec)):
            layers.add_to_(pair, None if mask is None else mask[index])
        state.pair.commit()

    def add_to_(self, pair: PairRows, mask: Bool[Tensor, "i j"] | None) -> None:
        """Add the update of one protein to its pair."""
        backend, length = self.backend, len(pair)
        left, right = (backend.channel_buffer(self.channels, length, pair.device) for _ in range(2))
        operands = (
            (self.left_gate, self.left_proj, self.grids[0], left),
            (self.right_gate, self.right_proj, self.grids[1], right),
        )
        read = list[Codes8]()
        for rows in row_tiles(backend, length, length):
            codes = normalized_codes(backend, self.norm, pair.read(rows).flatten(0, 1), self.grid)
            valid = None if mask is None else mask[rows].flatten()
            for gate, proj, grid, operand in operands:
                backend.gated_channels(codes, gate, proj, grid, valid, operand, rows.start)
            read.append(codes)
        tiles = list(row_tiles(backend, length, length))
        # The product is faster for more rows at a time than the other steps process.
        step = max(1, backend.product_rows(self.channels, length) // tiles[0].stop) * tiles[0].stop if tiles else 1
        for codes, rows in zip(read, tiles, strict=True):
            if rows.start % step == 0:
                first = rows.start
                more = slice(first, min(length, first + step))
                product = backend.triangle_product(left, right, self.grids, self.direction, more)
            some = backend.product_tokens(product, self.grids, slice(rows.start - first, rows.stop - first))
            normalized = normalized_codes(backend, self.out_norm, some, self.product_grid)
            update = backend.linear(normalized, self.out_proj, backend.update_dtype)
            tile = pair.read(rows)
            backend.gated_add_(codes, self.out_gate, update, tile.flatten(0, 1))
            pair.write(rows, tile)


class IntegerTriangleAttention(HoldsLayers):
    """Twin of a quantized `TriangleAttention`; after the update, `codec` stores the pair.

    Raises
    ------
    NoIntegerKernelError
        If a layer or product of it has no integer kernel.
    """

    def __init__(self, module: TriangleAttention, backend: Backend, path: str, codec: PairCodec | None = None) -> None:
        super().__init__()
        self.node, self.num_heads, self.backend, self.codec = module.node, module.num_heads, backend, codec
        self.norm = module.norm
        names = ("q_proj", "k_proj", "v_proj", "gate_proj", "bias_proj")
        self.grid, weights = shared_input(module, names, path)
        qkv = stacked([weights["q_proj"], weights["k_proj"], weights["v_proj"]])
        self.attention = GatedAttention(
            module, qkv, weights["gate_proj"], self.grid, backend, path, heads=module.num_heads, scale=module.scale
        )
        self.bias_proj = backend.prepare(weights["bias_proj"], self.grid)
        self.rows = [SupportRow(path, "integer", backend.kernel)]

    def update_(self, state: BlockState) -> None:
        mask = state.pair_mask
        for index, pair in enumerate(state.pair.begin(self.codec)):
            valid = None if mask is None else mask[index]
            if self.node == "ending":
                self.add_to_(pair.transposed(), None if valid is None else valid.T)
            else:
                self.add_to_(pair, valid)
        state.pair.commit()

    def add_to_(self, pair: PairRows, mask: Bool[Tensor, "i j"] | None) -> None:
        """Add the update of one protein to its pair."""
        backend, length = self.backend, len(pair)
        bias_proj = backend.unpacked(self.bias_proj)
        bias = torch.empty(length, length, self.num_heads, dtype=torch.float32, device=pair.device)
        read = list[Codes8]()
        for rows in row_tiles(backend, length, length):
            codes = normalized_codes(backend, self.norm, pair.read(rows).flatten(0, 1), self.grid)
            bias[rows] = backend.linear(codes, bias_proj).unflatten(0, (-1, length))
            read.append(codes)
        attention = self.attention.unpacked()
        triangle_bias = backend.attention_bias(bias.permute(2, 0, 1).contiguous(), attention.grids)
        for codes, rows in zip(read, row_tiles(backend, length, length), strict=True):
            tile = pair.read(rows)
            attention.add_to_(codes, tile, triangle_bias, None if mask is None else mask[rows])
            pair.write(rows, tile)
