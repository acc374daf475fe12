"""LayerNorm and the codes of its output, tile by tile."""

from collections.abc import Iterator
from typing import TypeGuard

from jaxtyping import Float
from torch import Tensor, nn

from protquant.kernels.backend import Backend
from protquant.kernels.operands import Codes8, Grid, TokenGrid
from protquant.quant.modules import QuantizedLayerNorm

__all__ = ["is_plain", "normalized_codes", "row_tiles"]


def row_tiles(backend: Backend, length: int, tokens_per_row: int) -> Iterator[slice]:
    """Yield slices of rows that have the number of tokens which the backend prefers."""
    tokens = backend.tile_tokens
    step = length if tokens is None else max(1, tokens // max(1, tokens_per_row))
    if tokens is not None and step > backend.tile_rows:
        step -= step % backend.tile_rows
    for first in range(0, length, max(1, step)):
        yield slice(first, min(first + step, length))


def is_plain(norm: nn.Module) -> TypeGuard[nn.LayerNorm]:
    """Return whether the input of a norm is not quantized."""
    return type(norm) is nn.LayerNorm or (type(norm) is QuantizedLayerNorm and norm.input_quantizer is None)


def normalized_codes(backend: Backend, norm: nn.Module, x: Float[Tensor, "m c"], grid: Grid | TokenGrid) -> Codes8:
    """Return codes of the normalized rows; a quantized input of the norm is simulated."""
    if is_plain(norm):
        return backend.normalized_codes(x, norm.weight, norm.bias, norm.eps, grid)
    return backend.quantize(norm(x), grid)
