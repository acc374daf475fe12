"""Triangle updates of the pair representation on integers (Algorithms 11-14 of Jumper et al. 2021).

What is in codes: what the linear layers read, the operands of triangle multiplication, queries, keys and values.
Rows of the pair are worked on a few at a time, and the pair is updated in place, so that no float of its size is made.
"""

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from protquant.integer.attention import GatedAttention
from protquant.integer.norm import normalized_codes, row_tiles
from protquant.integer.operands import NoIntegerKernelError, stacked, tap_grid
from protquant.integer.pair_stream import PairCodec, PairRows, PairStream
from protquant.integer.readers import only_input, shared_input
from protquant.kernels.backend import Backend
from protquant.kernels.operands import Codes8
from protquant.models.triangle import TriangleAttention, TriangleMultiplication

__all__ = ["IntegerTriangleAttention", "IntegerTriangleMultiplication"]


class IntegerTriangleMultiplication(nn.Module):
    """Twin of a quantized `TriangleMultiplication`.

    Raises
    ------
    NoIntegerKernelError
        Where a part of it has none.
    """

    def __init__(self, module: TriangleMultiplication, backend: Backend, path: str) -> None:
        super().__init__()
        self.direction, self.backend = module.direction, backend
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

    def add_to_(self, pair: PairStream, mask: Bool[Tensor, "b i j"] | None, codec: PairCodec | None = None) -> None:
        """Add the update to the pair, which is kept by `codec` from then on."""
        for index, rows in enumerate(pair.starts(codec)):
            self._add_to(rows, None if mask is None else mask[index])
        pair.ends()

    def _add_to(self, pair: PairRows, mask: Bool[Tensor, "i j"] | None) -> None:
        backend, length = self.backend, len(pair)
        left, right = (backend.channel_buffer(self.channels, length, pair.device) for _ in range(2))
        operands = (
            (backend.open(self.left_gate), backend.open(self.left_proj), self.grids[0], left),
            (backend.open(self.right_gate), backend.open(self.right_proj), self.grids[1], right),
        )
        read = list[Codes8]()
        for rows in row_tiles(backend, length, length):
            codes = normalized_codes(backend, self.norm, pair.read(rows).flatten(0, 1), self.grid)
            valid = None if mask is None else mask[rows].flatten()
            for gate, proj, grid, operand in operands:
                backend.gated_channels(codes, gate, proj, grid, valid, operand, rows.start)
            read.append(codes)
        out_gate, out_proj = backend.open(self.out_gate), backend.open(self.out_proj)
        tiles = list(row_tiles(backend, length, length))
        # The product is made for more rows at a time than the other steps work on: it pays.
        step = max(1, backend.product_rows(self.channels, length) // tiles[0].stop) * tiles[0].stop if tiles else 1
        for codes, rows in zip(read, tiles, strict=True):
            if rows.start % step == 0:
                first = rows.start
                more = slice(first, min(length, first + step))
                product = backend.triangle_product(left, right, self.grids, self.direction, more)
            some = backend.product_tokens(product, self.grids, slice(rows.start - first, rows.stop - first))
            normalized = normalized_codes(backend, self.out_norm, some, self.product_grid)
            update = backend.linear(normalized, out_proj, backend.update_dtype)
            tile = pair.read(rows)
            backend.gated_add_(codes, out_gate, update, tile.flatten(0, 1))
            pair.write(rows, tile)


class IntegerTriangleAttention(nn.Module):
    """Twin of a quantized `TriangleAttention`.

    Raises
    ------
    NoIntegerKernelError
        Where a part of it has none.
    """

    def __init__(self, module: TriangleAttention, backend: Backend, path: str) -> None:
        super().__init__()
        self.node, self.num_heads, self.backend = module.node, module.num_heads, backend
        self.norm = module.norm
        names = ("q_proj", "k_proj", "v_proj", "gate_proj", "bias_proj")
        self.grid, weights = shared_input(module, names, path)
        qkv = stacked([weights["q_proj"], weights["k_proj"], weights["v_proj"]])
        self.attention = GatedAttention(
            module, qkv, weights["gate_proj"], self.grid, backend, path, heads=module.num_heads, scale=module.scale
        )
        self.bias_proj = backend.prepare(weights["bias_proj"], self.grid)

    def add_to_(self, pair: PairStream, mask: Bool[Tensor, "b i j"] | None, codec: PairCodec | None = None) -> None:
        """Add the update to the pair, which is kept by `codec` from then on."""
        for index, rows in enumerate(pair.starts(codec)):
            valid = None if mask is None else mask[index]
            if self.node == "ending":
                self._add_to(rows.turn(), None if valid is None else valid.T)
            else:
                self._add_to(rows, valid)
        pair.ends()

    def _add_to(self, pair: PairRows, mask: Bool[Tensor, "i j"] | None) -> None:
        backend, length = self.backend, len(pair)
        bias_proj = backend.open(self.bias_proj)
        bias = torch.empty(length, length, self.num_heads, dtype=torch.float32, device=pair.device)
        read = list[Codes8]()
        for rows in row_tiles(backend, length, length):
            codes = normalized_codes(backend, self.norm, pair.read(rows).flatten(0, 1), self.grid)
            bias[rows] = backend.linear(codes, bias_proj).unflatten(0, (-1, length))
            read.append(codes)
        attention = self.attention.opened()
        triangle_bias = backend.attention_bias(bias.permute(2, 0, 1).contiguous(), attention.grids)
        for codes, rows in zip(read, row_tiles(backend, length, length), strict=True):
            tile = pair.read(rows)
            attention.add_to_(codes, tile, triangle_bias, None if mask is None else mask[rows])
            pair.write(rows, tile)
