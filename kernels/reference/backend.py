"""Integer execution in plain torch: what the fast backends are tested against. Slow, and on any device."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Integer, Shaped, UInt8
from torch import Tensor

from protquant.kernels.backend import Backend, Linear
from protquant.kernels.operands import Activation, ByteGrid, Codes8, Direction, Grid, IntegerWeight, TokenGrid, spread
from protquant.kernels.reference.attention import MASKED_LOGIT
from protquant.kernels.reference.piecewise_bytes import decode_tailed_bytes, encode_tailed_bytes

__all__ = ["ReferenceBackend", "quantize_rows"]


class _Plain(Linear):
    @property
    def nbytes(self) -> int:
        return self.weight.nbytes


def quantize_rows(x: Float[Tensor, "m k"], grid: Grid | TokenGrid) -> Codes8:
    """Codes from -128 to 127 of every row, as the formats of `protquant.quant` have them."""
    x = x.float()
    if isinstance(grid, Grid):
        grid = grid.signed
        scale = torch.tensor([grid.scale], device=x.device)
        codes = (x * scale.reciprocal()).round_().add_(grid.zero).clamp_(grid.low, grid.high)
        return Codes8(codes.to(torch.int8), scale, torch.tensor([grid.zero], dtype=torch.int32, device=x.device))
    low, high = (end.double() for end in x.aminmax(dim=-1))
    tiny = torch.finfo(torch.float32).tiny
    if grid.symmetric:
        # Values that are never negative get all codes for themselves, if none of the matrix is.
        unsigned = bool((low >= 0).all())
        code_low, code_high = (
            (0, 2**grid.bits - 1) if unsigned else (1 - 2 ** (grid.bits - 1), 2 ** (grid.bits - 1) - 1)
        )
        scale = torch.maximum(-low, high) / code_high
        zero = torch.zeros_like(scale)
    else:
        low, high = low.clamp(max=0), high.clamp(min=0)
        code_low, code_high = 0, 2**grid.bits - 1
        scale = (high - low) / code_high
        zero = -low
    scale = torch.where(scale > tiny, scale, 1.0)
    zero = (zero / scale).round()
    scale = scale.float()
    move = 128 if code_high > 127 else 0
    codes = (x * scale.reciprocal()[:, None]).round_().add_(zero.float()[:, None]).clamp_(code_low, code_high)
    return Codes8(codes.sub_(move).to(torch.int8), scale, (zero - move).int())


class ReferenceBackend(Backend):
    """Integers as integers, everything else in float32."""

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

    def open(self, layer: Linear) -> Linear:
        return layer

    def quantize(self, x: Float[Tensor, "m k"], grid: Grid | TokenGrid) -> Codes8:
        self.calls["quantize", self.name] += 1
        return quantize_rows(x, grid)

    def linear(
        self, x: Codes8, layer: Linear, dtype: torch.dtype = torch.float32, residual: Float[Tensor, "m n"] | None = None
    ) -> Float[Tensor, "m n"]:
        y = self._linear(x, layer)
        return y.to(dtype) if residual is None else residual.add_(y)

    def _linear(self, x: Codes8, layer: Linear) -> Float[Tensor, "m n"]:
        self.calls["linear", self.name] += 1
        weight = layer.weight
        steps = weight.steps().double()
        if weight.kind == "int8" and weight.zero is not None:
            steps = steps - spread(weight.zero, weight.group_size, weight.in_features).double()
        codes = x.data.double() - x.zero[:, None].double()
        size = weight.group_size or weight.in_features
        y = codes.new_zeros(len(codes), len(steps), dtype=torch.float32)
        # Sums of a group are integers, and exact; groups are added in float32, in order.
        for index, (some, part) in enumerate(zip(codes.split(size, 1), steps.split(size, 1), strict=True)):
            y += (some @ part.T).float() * (x.scale[:, None] * weight.step_scale[:, index])
        if weight.bias is not None:
            y = y + weight.bias
        return F.relu(y) if layer.activation == "relu" else F.gelu(y) if layer.activation == "gelu" else y

    def linear_codes(self, x: Codes8, layer: Linear) -> Codes8:
        parts = self._linear(x, layer).split([count for _, count in layer.outs], dim=1)
        codes = [quantize_rows(part, grid) for part, (grid, _) in zip(parts, layer.outs, strict=True)]
        return Codes8(torch.cat([each.data for each in codes], dim=1), codes[0].scale, codes[0].zero)

    def gated_codes(self, x: Codes8, gate: Linear, values: Float[Tensor, "m n"], grid: Grid | TokenGrid) -> Codes8:
        return self.quantize(self._linear(x, gate).sigmoid() * values.float(), grid)

    def gated_add_(
        self, x: Codes8, gate: Linear, values: Float[Tensor, "m n"], residual: Float[Tensor, "m n"]
    ) -> Float[Tensor, "m n"]:
        return residual.add_(self._linear(x, gate).sigmoid() * values.float())

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
        values = self._linear(x, gate).sigmoid() * self._linear(x, proj)
        if mask is not None:
            values = values * mask[:, None]
        codes = quantize_rows(values, grid).data.unflatten(0, (-1, out.shape[2]))
        out[:, first : first + len(codes)] = codes.permute(2, 0, 1)

    def channel_buffer(self, channels: int, length: int, device: torch.device) -> Integer[Tensor, "c i k"]:
        return torch.empty(channels, length, length, dtype=torch.int8, device=device)

    def triangle_product(
        self,
        left: Integer[Tensor, "c i k"],
        right: Integer[Tensor, "c j k"],
        grids: tuple[Grid, Grid],
        direction: Direction,
        rows: slice,
    ) -> Float64[Tensor, "c i j"]:
        self.calls["triangle_product", self.name] += 1
        a, b = (codes.double() - grid.signed.zero for codes, grid in zip((left, right), grids, strict=True))
        return a[:, rows] @ b.mT if direction == "outgoing" else a[:, :, rows].mT @ b

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
        logits = q @ k.mT * scale
        if bias is not None:
            logits = logits + bias.float()
        if mask is not None:
            logits = logits + torch.where(mask, 0.0, MASKED_LOGIT)[:, None, None, :]
        return (logits.softmax(-1) @ v).transpose(1, 2).flatten(0, 1).flatten(1)
