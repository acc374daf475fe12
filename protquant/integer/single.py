"""The single representation of the trunk on integers, and its ways to and from the pair."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from protquant.integer.attention import GatedAttention
from protquant.integer.norm import normalized_codes, row_tiles
from protquant.integer.operands import reordered
from protquant.integer.pair_stream import PairCodec, PairStream
from protquant.integer.readers import only_input, shared_input
from protquant.kernels.backend import Backend
from protquant.models.trunk import PairToBias, SingleAttention, SingleToPair

__all__ = ["IntegerPairToBias", "IntegerSingleAttention", "IntegerSingleToPair"]


class IntegerPairToBias(nn.Module):
    """Twin of a quantized `PairToBias`."""

    def __init__(self, module: PairToBias, backend: Backend, path: str) -> None:
        super().__init__()
        self.norm, self.backend = module.norm, backend
        self.grid, proj = only_input(module, "proj", path)
        self.proj = backend.prepare(proj, self.grid)

    def forward(self, pair: PairStream) -> Float[Tensor, "b h i j"]:
        batch, length = pair.shape[:2]
        proj = self.backend.open(self.proj)
        bias = torch.empty(batch, length, length, proj.weight.out_features, device=pair.device)
        for index, z in enumerate(pair.starts(None)):
            for rows in row_tiles(self.backend, length, length):
                codes = normalized_codes(self.backend, self.norm, z.read(rows).flatten(0, 1), self.grid)
                bias[index, rows] = self.backend.linear(codes, proj).unflatten(0, (-1, length))
        return bias.permute(0, 3, 1, 2)


class IntegerSingleAttention(nn.Module):
    """Twin of a quantized `SingleAttention` and of the norm before it."""

    def __init__(self, module: SingleAttention, norm: nn.Module, backend: Backend, path: str) -> None:
        super().__init__()
        self.norm, self.backend = norm, backend
        self.grid, weights = shared_input(module, ("qkv_proj", "gate_proj"), path)
        # From head by head to queries, keys and values by turns.
        rows = torch.arange(weights["qkv_proj"].out_features).view(module.num_heads, 3, -1).transpose(0, 1).flatten()
        qkv = reordered(weights["qkv_proj"], rows.tolist())
        self.attention = GatedAttention(
            module, qkv, weights["gate_proj"], self.grid, backend, path, heads=module.num_heads, scale=module.scale
        )

    def add_to_(
        self, single: Float[Tensor, "b l s"], bias: Float[Tensor, "b h i j"], mask: Bool[Tensor, "b l"] | None
    ) -> None:
        """Add the update to the single, contiguous, in place."""
        attention = self.attention.opened()
        for index, x in enumerate(single):
            codes = normalized_codes(self.backend, self.norm, x, self.grid)
            valid = None if mask is None else mask[index : index + 1]
            attention.add_to_(codes, x[None], self.backend.attention_bias(bias[index], attention.grids), valid)


class IntegerSingleToPair(nn.Module):
    """Twin of a quantized `SingleToPair`: products and differences go into codes row by row."""

    def __init__(self, module: SingleToPair, backend: Backend, path: str) -> None:
        super().__init__()
        self.norm, self.backend = module.norm, backend
        self.grid, proj = only_input(module, "proj", path)
        self.proj = backend.prepare(proj, self.grid)
        self.out_grid, out = only_input(module, "out_proj", path)
        self.out_proj = backend.prepare(out, self.out_grid)

    def add_to_(self, single: Float[Tensor, "b l s"], pair: PairStream, codec: PairCodec | None = None) -> None:
        """Add the update to the pair, which is kept by `codec` from then on."""
        backend, length = self.backend, single.shape[1]
        proj, out = backend.open(self.proj), backend.open(self.out_proj)
        for x, z in zip(single, pair.starts(codec), strict=True):
            q, k = backend.linear(normalized_codes(backend, self.norm, x, self.grid), proj).chunk(2, dim=-1)
            for rows in row_tiles(backend, length, length):
                tile = z.read(rows)
                codes = backend.outer_codes(q, k[rows], self.out_grid)
                backend.linear(codes, out, residual=tile.flatten(0, 1))
                z.write(rows, tile)
        pair.ends()
