"""Integer execution in plain torch: slow, for any device; tests compare the fast backends with it."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Float64, Integer, Shaped, UInt8
from torch import Tensor

from protquant.kernels.backend import Backend, Linear
from protquant.kernels.code_attention import attention_by_codes
from protquant.kernels.epilogue import Epilogue
from protquant.kernels.operands import Activation, ByteGrid, Codes8, Direction, Grid, IntegerWeight, TokenGrid
from protquant.kernels.reference.attention import attention
from protquant.kernels.reference.gated_projection import gated_projection
from protquant.kernels.reference.linear import linear, linear_codes
from protquant.kernels.reference.piecewise_bytes import decode_tailed_bytes, encode_tailed_bytes
from protquant.kernels.reference.quantize import quantize
from protquant.kernels.reference.triangle_product import triangle_product
from protquant.kernels.sequence_attention import OperandGrids, SequenceAttention

__all__ = ["ReferenceBackend"]


class _Plain(Linear):
    @property
    def nbytes(self) -> int:
        return self.weight.nbytes


class ReferenceBackend(Backend):
    """Backend that sums codes as integers, and computes the rest in float32."""

    name = "reference"

    @property
    def kernel(self) -> str:
        return "plain torch, float64 sums of integers"

    def prepare(
        self,
        weight: IntegerWeight,
        grid: Grid | TokenGrid,  # noqa: ARG002
        activation: Activation = "none",
        outs: Sequence[tuple[Grid, int]] = (),
    ) -> Linear:
        return _Plain(weight, activation, outs)

    def unpacked(self, layer: Linear) -> Linear:
        return layer

    def quantize(self, x: Float[Tensor, "m k"], grid: Grid | TokenGrid) -> Codes8:
        self.calls["quantize", self.name] += 1
        return quantize(x, grid)

    def linear(
        self, x: Codes8, layer: Linear, dtype: torch.dtype = torch.float32, residual: Float[Tensor, "m n"] | None = None
    ) -> Float[Tensor, "m n"]:
        self.calls["linear", self.name] += 1
        if residual is None:
            return linear(x, layer.weight, Epilogue(layer.activation, dtype=dtype))
        return residual.add_(linear(x, layer.weight, Epilogue(layer.activation)))

    def linear_codes(self, x: Codes8, layer: Linear) -> Codes8:
        self.calls["linear", self.name] += 1
        return linear_codes(x, layer.weight, layer.activation, layer.outs)

    def gated_codes(self, x: Codes8, gate: Linear, values: Float[Tensor, "m n"], grid: Grid | TokenGrid) -> Codes8:
        self.calls["linear", self.name] += 1
        return self.quantize(linear(x, gate.weight, Epilogue("sigmoid", gate=values)), grid)

    def gated_add_(
        self, x: Codes8, gate: Linear, values: Float[Tensor, "m n"], residual: Float[Tensor, "m n"]
    ) -> Float[Tensor, "m n"]:
        self.calls["linear", self.name] += 1
        return residual.add_(linear(x, gate.weight, Epilogue("sigmoid", gate=values)))

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
        self.calls["linear", self.name] += 2
        codes = gated_projection(x, proj.weight, gate.weight, grid, mask).unflatten(1, (-1, out.shape[2]))
        out[:, first : first + codes.shape[1]] = codes

    def channel_buffer(self, channels: int, length: int, device: torch.device) -> Integer[Tensor, "c i k"]:
        return torch.empty(channels, length, length, dtype=torch.int8, device=device)

    def triangle_product(
        self,
        left: Integer[Tensor, "c a b"],
        right: Integer[Tensor, "c d e"],
        grids: tuple[Grid, Grid],
        direction: Direction,
        rows: slice,
    ) -> Float64[Tensor, "c i j"]:
        self.calls["triangle_product", self.name] += 1
        return triangle_product(left[:, rows] if direction == "outgoing" else left[:, :, rows], right, grids, direction)

    def product_tokens(
        self, product: Shaped[Tensor, "c i j"], grids: tuple[Grid, Grid], rows: slice
    ) -> Float[Tensor, "ij c"]:
        return (product[:, rows].float() * (grids[0].scale * grids[1].scale)).permute(1, 2, 0).flatten(0, 1)

    def encode_bytes(self, x: Float[Tensor, "..."], grid: ByteGrid) -> UInt8[Tensor, "..."]:
        self.calls["encode_bytes", self.name] += 1
        return encode_tailed_bytes(x.float(), grid)

    def decode_bytes(self, codes: UInt8[Tensor, "..."], grid: ByteGrid) -> Float[Tensor, "..."]:
        self.calls["decode_bytes", self.name] += 1
        return decode_tailed_bytes(codes, grid)

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
        self.calls["attention", self.name] += 1
        data = qkv.data if isinstance(qkv, Codes8) else qkv
        parts = data.float().unflatten(0, (-1, length)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if grids is not None:
            parts = tuple((x - g.signed.zero) * g.scale for x, g in zip(parts, grids, strict=True))
        q, k, v = parts
        return attention(q, k, v, None if bias is None else bias[None], mask, scale).flatten(0, 1).flatten(1)

    def sequence_attention(
        self, grids: OperandGrids, heads: int, channels: int, dtype: torch.dtype | None = None
    ) -> SequenceAttention:
        return attention_by_codes(self, grids, heads, channels, dtype)
