"""Integer execution on CPUs with operations of stock torch: no compiler is needed at run time."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float, Integer, Shaped, UInt8
from torch import Tensor

from protquant.kernels.backend import Backend, Linear
from protquant.kernels.cpu.attention import attend_bfloat16, attend_float32, in_bits, space_elements
from protquant.kernels.cpu.features import Features, features
from protquant.kernels.cpu.linear import CPULinear
from protquant.kernels.cpu.piecewise import decode_bytes, encode_bytes
from protquant.kernels.cpu.quantize import on_grid, quantize, quantize_static
from protquant.kernels.cpu.sequence_attention import CPUCodeAttention
from protquant.kernels.cpu.triangle_product import float_operand_bytes, float_triangle_product
from protquant.kernels.operands import Activation, ByteGrid, Codes8, Direction, Grid, IntegerWeight, TokenGrid
from protquant.kernels.sequence_attention import OperandGrids, SequenceAttention, StepAttention

__all__ = ["CPUBackend"]

_TILE_TOKENS = 8192
"""Number of rows to process at a time: they fit into the cache, and the overhead of calls is small."""
_SEQUENCE_TOKENS = 2048
"""Number of tokens of a language model to process at a time: its rows are ten times as wide."""
_PRODUCT_BYTES = 2**25
"""Bytes of the sums of a triangle multiplication that are computed at a time."""
_APART = 16
"""Number of floats in a cache line."""


class CPUBackend(Backend):
    """Backend with oneDNN's int8 product, int8 triangle products, and attention on integers stored as floats.

    Buffers for logits and triangle products are reused. So one thread at a time may use a backend, and a model that
    runs on it, and a triangle product is valid until the next one.

    Parameters
    ----------
    can : Features, optional
        Products to use; by default those that trials on this CPU find.
    """

    name = "cpu"

    def __init__(self, can: Features | None = None) -> None:
        super().__init__()
        self.can = can or features()
        self._spaces: dict[tuple[str, torch.dtype], Tensor] = {}

    @property
    def tile_tokens(self) -> int:
        return _TILE_TOKENS

    @property
    def sequence_tokens(self) -> int:
        return _SEQUENCE_TOKENS

    @property
    def update_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.can.bfloat16 else torch.float32

    @property
    def kernel(self) -> str:
        return {"onednn": "oneDNN int8", "onednn, 7 bits": "oneDNN int8, weights in two parts (no VNNI)"}.get(
            self.can.product, "float32 products of integers (no int8 product on this CPU)"
        )

    def prepare(
        self,
        weight: IntegerWeight,
        grid: Grid | TokenGrid,
        activation: Activation = "none",
        outs: Sequence[tuple[Grid, int]] = (),
    ) -> Linear:
        return CPULinear(weight, grid, activation, outs, self.can)

    def unpacked(self, layer: Linear) -> Linear:
        return _own(layer).unpacked()

    def quantize(self, x: Float[Tensor, "m k"], grid: Grid | TokenGrid) -> Codes8:
        return quantize(x, grid)

    def linear(
        self, x: Codes8, layer: Linear, dtype: torch.dtype = torch.float32, residual: Float[Tensor, "m n"] | None = None
    ) -> Float[Tensor, "m n"]:
        self.calls["linear", self.can.product] += 1
        own = _own(layer).unpacked()
        return own.to_float(x, dtype) if residual is None else own.add_to(x, residual)

    def linear_codes(self, x: Codes8, layer: Linear) -> Codes8:
        self.calls["linear", self.can.product] += 1
        return on_grid(_own(layer).unpacked().to_codes(x), layer.outs[0][0])

    def gated_codes(self, x: Codes8, gate: Linear, values: Float[Tensor, "m n"], grid: Grid | TokenGrid) -> Codes8:
        self.calls["linear", self.can.product] += 1
        doubled = _gated(_own(gate).unpacked().tanh_half(x, values.dtype), values)
        if isinstance(grid, Grid):
            return on_grid(quantize_static(doubled, grid.stretched(2)), grid)
        return quantize(doubled.mul_(0.5), grid)

    def gated_add_(
        self, x: Codes8, gate: Linear, values: Float[Tensor, "m n"], residual: Float[Tensor, "m n"]
    ) -> Float[Tensor, "m n"]:
        self.calls["linear", self.can.product] += 1
        doubled = _gated(_own(gate).unpacked().tanh_half(x, values.dtype), values)
        return residual.add_(doubled.to(residual.dtype), alpha=0.5)

    def gated_channels(
        self,
        x: Codes8,
        gate: Linear,
        proj: Linear,
        grid: Grid,
        mask: Bool[Tensor, " m"] | None,
        out: Integer[Tensor, "c i k"],
        first: int,
    ) -> None:
        values = self.linear(x, proj)
        self.calls["linear", self.can.product] += 1
        gates = _own(gate).unpacked().tanh_half(x, torch.float32)
        if mask is not None:
            values *= mask[:, None]
        codes = quantize_static(_gated(gates, values), grid.stretched(2))
        codes = codes.bitwise_xor_(128).view(torch.int8).unflatten(0, (-1, out.shape[2]))
        out[:, first : first + len(codes)] = codes.permute(2, 0, 1)

    def channel_buffer(self, channels: int, length: int, device: torch.device) -> Integer[Tensor, "c i k"]:
        return torch.empty(channels, length, length, dtype=torch.int8, device=device)

    def triangle_product(
        self,
        left: Integer[Tensor, "c a b"],
        right: Integer[Tensor, "c d e"],
        grids: tuple[Grid, Grid],
        direction: Direction,
        rows: slice,
    ) -> Shaped[Tensor, "c i j"]:
        a, b = (left[:, rows], right.mT) if direction == "outgoing" else (left[:, :, rows].mT, right)
        # Codes are signed here: 128 less than the unsigned codes.
        a_zero, b_zero = (grid.unsigned.zero - 128 for grid in grids)
        channels, count, length = a.shape[0], a.shape[1], right.shape[1]
        if not self.can.int_mm or count <= 16:  # torch._int_mm needs more rows
            self.calls["triangle_product", "float32"] += 1
            return float_triangle_product(a, b, (a_zero, b_zero), self._space)
        self.calls["triangle_product", "int_mm"] += 1
        total = self._space("product", torch.int32, channels * count * length).view(channels, count, length)
        for rows_of, columns_of, out in zip(a.unbind(), b.unbind(), total.unbind(), strict=True):
            torch._int_mm(rows_of, columns_of, out=out)  # noqa: SLF001
        if b_zero:
            total -= a.sum(2, dtype=torch.int32).mul_(b_zero)[:, :, None]
        if a_zero:
            total -= b.sum(1, dtype=torch.int32).sub_(b_zero * a.shape[2]).mul_(a_zero)[:, None, :]
        return total

    def product_tokens(
        self, product: Shaped[Tensor, "c i j"], grids: tuple[Grid, Grid], rows: slice
    ) -> Float[Tensor, "ij c"]:
        # Convert first and transpose second: a single copy that does both is slow. Pad the channel stride: strides
        # that are powers of two cause conflicts in the cache.
        some = product[:, rows]
        channels, tokens = len(some), some.shape[1] * some.shape[2]
        by_channel = self._space("tokens", torch.float32, channels * (tokens + _APART)).view(channels, -1)[:, :tokens]
        by_channel.unflatten(1, some.shape[1:]).copy_(some)
        return by_channel.T.contiguous().mul_(grids[0].scale * grids[1].scale)

    def encode_bytes(self, x: Float[Tensor, "..."], grid: ByteGrid) -> UInt8[Tensor, "..."]:
        self.calls["encode_bytes", "torch"] += 1
        return encode_bytes(x.float(), grid)

    def decode_bytes(self, codes: UInt8[Tensor, "..."], grid: ByteGrid) -> Float[Tensor, "..."]:
        self.calls["decode_bytes", "torch"] += 1
        return decode_bytes(codes, grid)

    def product_rows(self, channels: int, length: int) -> int:
        """Return the number of rows of a triangle multiplication to process at a time."""
        return max(32, _PRODUCT_BYTES // (4 * channels * length))

    def kept_bytes(self, channels: int, heads: int, length: int) -> int:
        """Return the bytes of all `_space` buffers for a pair: a triangle product, its tokens, attention logits."""
        tile = min(length, max(1, self.tile_tokens // length))
        rows = min(length, max(1, self.product_rows(channels, length) // tile) * tile)
        sums = 4 * channels * rows * length
        operands = 0 if self.can.int_mm else float_operand_bytes(rows, length)
        tokens = 4 * channels * (tile * length + _APART)
        logits = 2 * space_elements(tile, heads, length, channels) if self.can.bfloat16 else 0
        return sums + operands + tokens + logits

    def unpacked_bytes(self, weights: Sequence[tuple[int, int]]) -> int:
        """Return the bytes of unpacked weights: those of four bits, and all if a product takes weights in two parts."""
        halved = self.can.product == "onednn, 7 bits"
        unpacked = sum(elements * (2 if bits > 4 else 1) for bits, elements in weights if bits <= 4 or halved)
        # One weight at a time also exists in the order before oneDNN's packing, or as floats.
        widest = max((elements for _, elements in weights), default=0)
        return unpacked + widest * (4 if self.can.product == "float" else 1 if unpacked else 0)

    def attention_bias(
        self, bias: Float[Tensor, "h q k"], grids: tuple[Grid, Grid, Grid] | None
    ) -> Float[Tensor, "h q k"]:
        return in_bits(bias) if grids is not None and self.can.bfloat16 else bias

    def attention(
        self,
        qkv: Codes8 | Float[Tensor, "m n"],
        grids: tuple[Grid, Grid, Grid] | None,
        heads: int,
        length: int,
        scale: float,
        bias: Float[Tensor, "h q k"] | None,
        mask: Bool[Tensor, "b k"] | None,
    ) -> Float[Tensor, "m hd"]:
        zeros, v_scale = (0, 0, 0), 1.0
        if grids is not None:
            q_grid, k_grid, v_grid = (grid.unsigned for grid in grids)
            scale = scale * q_grid.scale * k_grid.scale
            zeros, v_scale = (q_grid.zero, k_grid.zero, v_grid.zero), v_grid.scale
        if isinstance(qkv, Codes8) and self.can.bfloat16:
            self.calls["attention", "bfloat16"] += 1
            space = partial(self._space, "attention", torch.bfloat16)
            return attend_bfloat16(qkv.data, zeros, heads, length, (scale, v_scale), bias, mask, space)
        self.calls["attention", "float32"] += 1
        data = qkv.data if isinstance(qkv, Codes8) else qkv
        out = attend_float32(data, (zeros[0], zeros[2]), heads, length, scale, bias, mask)
        return out if v_scale == 1 else out.mul_(v_scale)

    def sequence_attention(
        self, grids: OperandGrids, heads: int, channels: int, dtype: torch.dtype | None = None
    ) -> SequenceAttention:
        coded = self.can.int_mm and grids[0] is not None and grids[1] is not None
        dtype = dtype or (self.update_dtype if all(grids) else torch.float32)
        return (CPUCodeAttention if coded else StepAttention)(grids, heads, channels, dtype, self.calls)

    def _space(self, name: str, dtype: torch.dtype, elements: int) -> Tensor:
        """Return a buffer that calls reuse: to allocate tens of megabytes takes longer than a product."""
        kept = self._spaces.get((name, dtype))
        if kept is None or len(kept) < elements:
            with torch.inference_mode(False):  # a tensor made in inference mode cannot be written outside of it
                kept = self._spaces[name, dtype] = torch.empty(elements, dtype=dtype)
        return kept[:elements]


def _own(layer: Linear) -> CPULinear:
    assert isinstance(layer, CPULinear)
    return layer


def _gated(tanh_half: Float[Tensor, "m n"], values: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """Return twice `sigmoid(g) * values`, computed from tanh(g / 2) in its own memory, which is in the cache."""
    return torch.addcmul(values, tanh_half, values, out=tanh_half)
