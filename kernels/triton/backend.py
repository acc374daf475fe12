"""Integer execution by Triton kernels on GPUs of NVIDIA and AMD; on CPUs they are interpreted, for tests."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer, UInt8
from torch import Tensor

from protquant.kernels.backend import Backend, Linear
from protquant.kernels.code_attention import attention_by_codes
from protquant.kernels.epilogue import Epilogue
from protquant.kernels.operands import Activation, ByteGrid, Codes8, Direction, Grid, IntegerWeight, TokenGrid
from protquant.kernels.reference.attention import MASKED_LOGIT
from protquant.kernels.sequence_attention import OperandGrids, SequenceAttention
from protquant.kernels.triton.attention import attention_int8
from protquant.kernels.triton.gated_projection import gated_projection
from protquant.kernels.triton.layers import KernelLayer, TritonLayer, layer_of
from protquant.kernels.triton.norm import layer_norm_quantize
from protquant.kernels.triton.operands import numbers, on_grid
from protquant.kernels.triton.outer import outer_quantize
from protquant.kernels.triton.piecewise import decode_tailed_bytes, encode_tailed_bytes
from protquant.kernels.triton.quantize import quantize_int8
from protquant.kernels.triton.tiles import target_of
from protquant.kernels.triton.transition import MAX_TRANSITION_CHANNELS, transition_int8
from protquant.kernels.triton.triangle_product import triangle_product

__all__ = ["TritonBackend"]

_TILE_TOKENS = 2**20
"""Number of rows to process at a time: all pairs of 1,024 residues."""
_SEQUENCE_TOKENS = 2**16
"""Number of tokens of a language model to process at a time: 5 GB of the widest hidden layer in float32."""
_PRODUCT_BYTES = 2**30
"""Bytes of the sums of a triangle multiplication that are computed at a time."""
_BIAS_BYTES = 2**28
"""Bytes of masks plus biases of float attention at a time: torch needs their sum for each sequence."""
_ALIGNED = 16
"""Rows of operands that a kernel reads often begin at multiples of this, so that one load reads many elements."""


class TritonBackend(Backend):
    """Backend whose kernels fuse int8 and int4 products with the operations after them, attention and transitions.

    Parameters
    ----------
    dtype : torch.dtype, optional
        Type of intermediate values that are rounded later or added, and not stored: attention outputs, updates and
        gates. By default bfloat16; in the interpreter, which truncates bfloat16 where it should round, float32.
    """

    name = "triton"
    tile_rows = 16  # so that operands of a triangle multiplication are aligned for wide loads

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.dtype = dtype or (torch.bfloat16 if torch.cuda.is_available() else torch.float32)

    @property
    def tile_tokens(self) -> int:
        return _TILE_TOKENS

    @property
    def sequence_tokens(self) -> int:
        return _SEQUENCE_TOKENS

    @property
    def update_dtype(self) -> torch.dtype:
        return self.dtype

    @property
    def kernel(self) -> str:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return f"Triton int8, {target_of(device) or 'interpreted'}"

    def prepare(
        self,
        weight: IntegerWeight,
        grid: Grid | TokenGrid,
        activation: Activation = "none",
        outs: Sequence[tuple[Grid, int]] = (),
    ) -> Linear:
        return layer_of(weight, grid, activation, outs)

    def unpacked(self, layer: Linear) -> Linear:
        return layer  # the kernels unpack four-bit weights

    def quantize(self, x: Float[Tensor, "m k"], grid: Grid | TokenGrid) -> Codes8:
        self.calls["quantize", "quantize_int8"] += 1
        return quantize_int8(x, grid)

    def outer_codes(self, q: Float[Tensor, "j d"], k: Float[Tensor, "i d"], grid: Grid | TokenGrid) -> Codes8:
        if not isinstance(grid, Grid):
            return super().outer_codes(q, k, grid)
        self.calls["quantize", "outer_quantize"] += 1
        return outer_quantize(q, k, grid)

    def normalized_codes(
        self,
        x: Float[Tensor, "m c"],
        gain: Float[Tensor, " c"] | None,
        bias: Float[Tensor, " c"] | None,
        eps: float,
        grid: Grid | TokenGrid,
    ) -> Codes8:
        self.calls["norm", "layer_norm_quantize"] += 1
        return layer_norm_quantize(x, gain, bias, eps, grid)

    def linear(
        self, x: Codes8, layer: Linear, dtype: torch.dtype = torch.float32, residual: Float[Tensor, "m n"] | None = None
    ) -> Float[Tensor, "m n"]:
        own = self._count(layer)
        if residual is None:
            return own.run(x, Epilogue(layer.activation, dtype=dtype))
        if not residual.is_contiguous():
            return residual.add_(own.run(x, Epilogue(layer.activation)))
        return own.run(x, Epilogue(layer.activation, residual=residual, dtype=residual.dtype), out=residual)

    def linear_codes(self, x: Codes8, layer: Linear) -> Codes8:
        return on_grid(self._count(layer).run_coded(x), layer.outs[0][0])

    def perceptron_add_(
        self, x: Codes8, up: Linear, down: Linear, residual: Float[Tensor, "m n"]
    ) -> Float[Tensor, "m n"]:
        first, second = (each.pair_weight if isinstance(each, KernelLayer) else None for each in (up, down))
        widest = max(up.weight.in_features, down.weight.out_features)
        fits = widest <= MAX_TRANSITION_CHANNELS and up.activation == "relu" and down.activation == "none"
        if first is None or second is None or not fits or not residual.is_contiguous():
            return super().perceptron_add_(x, up, down, residual)
        self.calls["perceptron", "transition_int8"] += 1
        assert isinstance(up, KernelLayer)
        return transition_int8(
            x,
            first,
            up.outs[0][0],
            second,
            residual=residual,
            dtype=residual.dtype,
            has_zero=up.reads_zero,
            out=residual,
        )

    def gated_codes(self, x: Codes8, gate: Linear, values: Float[Tensor, "m n"], grid: Grid | TokenGrid) -> Codes8:
        own = self._count(gate)
        if isinstance(grid, Grid):
            return on_grid(own.run(x, Epilogue("sigmoid", gate=values, grid=grid)), grid)
        return self.quantize(own.run(x, Epilogue("sigmoid", gate=values)), grid)

    def gated_add_(
        self, x: Codes8, gate: Linear, values: Float[Tensor, "m n"], residual: Float[Tensor, "m n"]
    ) -> Float[Tensor, "m n"]:
        own = self._count(gate)
        if not residual.is_contiguous():
            return residual.add_(own.run(x, Epilogue("sigmoid", gate=values)))
        return own.run(x, Epilogue("sigmoid", gate=values, residual=residual, dtype=residual.dtype), out=residual)

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
        length = out.shape[2]
        place = out[:, first : first + len(x.data) // max(length, 1)]
        if len(x.data) == 0 or self._gate_in_one(x, gate, proj, grid, mask, place):
            return
        gates = self._count(gate).run(x, Epilogue("sigmoid", dtype=self.dtype))
        if mask is not None:
            gates = gates.mul_(mask[:, None])
        values = self._count(proj).run(x, Epilogue(gate=gates, dtype=self.dtype))
        place.copy_(self.quantize(values, grid).data.unflatten(0, (-1, length)).permute(2, 0, 1))

    def _gate_in_one(
        self,
        x: Codes8,
        gate: Linear,
        proj: Linear,
        grid: Grid,
        mask: Bool[Tensor, " m"] | None,
        place: Integer[Tensor, "c i k"],
    ) -> bool:
        """Write an operand of a triangle multiplication with one kernel, if it supports these weights."""
        if not (isinstance(gate, KernelLayer) and isinstance(proj, KernelLayer)):
            return False
        projected, opening = proj.pair_weight, gate.pair_weight
        if projected is None or opening is None:
            return False
        self.calls["gated_channels", "gated_projection"] += 1
        gated_projection(x, projected, opening, grid, mask, has_zero=proj.reads_zero, out=place)
        return True

    def channel_buffer(self, channels: int, length: int, device: torch.device) -> Integer[Tensor, "c i k"]:
        # With padding, any number of residues is as fast as a multiple of 16: see `is_padded` of `triangle_product`.
        padded = _ALIGNED * -(-length // _ALIGNED)
        room = torch.zeros(channels, padded + _ALIGNED, padded, dtype=torch.int8, device=device)
        return room[:, :length, :length]

    def product_rows(self, channels: int, length: int) -> int:
        return max(128, _PRODUCT_BYTES // (4 * max(1, channels * length)))

    def triangle_product(
        self,
        left: Integer[Tensor, "c a b"],
        right: Integer[Tensor, "c d e"],
        grids: tuple[Grid, Grid],
        direction: Direction,
        rows: slice,
    ) -> Float[Tensor, "c i j"]:
        """Return values: sums times both scales. Memory is in the order of channels, as the kernel writes neighbors."""
        self.calls["triangle_product", "triangle_product"] += 1
        left = left[:, rows] if direction == "outgoing" else left[:, :, rows]
        return triangle_product(left, right, grids, direction, is_padded=True)

    def product_tokens(
        self,
        product: Float[Tensor, "c i j"],
        grids: tuple[Grid, Grid],  # noqa: ARG002 (the product is already scaled)
        rows: slice,
    ) -> Float[Tensor, "ij c"]:
        return product[:, rows].permute(1, 2, 0).flatten(0, 1)

    def encode_bytes(self, x: Float[Tensor, "..."], grid: ByteGrid) -> UInt8[Tensor, "..."]:
        self.calls["encode_bytes", "encode_tailed_bytes"] += 1
        return encode_tailed_bytes(x, grid)

    def decode_bytes(self, codes: UInt8[Tensor, "..."], grid: ByteGrid) -> Float[Tensor, "..."]:
        self.calls["decode_bytes", "decode_tailed_bytes"] += 1
        return decode_tailed_bytes(codes, grid)

    def attention_bias(
        self, bias: Float[Tensor, "h q k"], grids: tuple[Grid, Grid, Grid] | None
    ) -> Float[Tensor, "h q k"]:
        if grids is None:
            return bias
        # Every sequence of a batch reads the bias: store it in 16 bits, with rows aligned for wide loads.
        heads, queries, keys = bias.shape
        width = _ALIGNED * -(-keys // _ALIGNED)
        padded = torch.empty(heads, queries, width, dtype=torch.float16, device=bias.device)[..., :keys]
        most = torch.finfo(torch.float16).max
        return padded.copy_(bias.clamp(-most, most))

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
        data = qkv.data if isinstance(qkv, Codes8) else qkv
        if len(data) == 0:
            return torch.empty(0, data.shape[1] // 3, dtype=torch.float32, device=data.device)
        q, k, v = data.unflatten(0, (-1, length)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if grids is None:
            self.calls["attention", "torch, float"] += 1
            return _attend_floats(q, k, v, scale, bias, mask).transpose(1, 2).flatten(0, 1).flatten(1)
        self.calls["attention", "attention_int8"] += 1
        scales, zeros = zip(*(numbers(grid, data.device) for grid in grids), strict=True)
        q_zero, k_zero, v_zero = (None if zero is None else zero[0] for zero in zeros)
        y = attention_int8(
            q,
            k,
            v,
            *scales,
            q_zero=q_zero,
            k_zero=k_zero,
            v_zero=v_zero,
            bias=bias,
            mask=mask,
            scale=scale,
            dtype=self.dtype,
        )
        return y.view(len(data), -1)

    def sequence_attention(
        self, grids: OperandGrids, heads: int, channels: int, dtype: torch.dtype | None = None
    ) -> SequenceAttention:
        return attention_by_codes(self, grids, heads, channels, dtype)

    def _count(self, layer: Linear) -> TritonLayer:
        assert isinstance(layer, TritonLayer)
        self.calls["linear", layer.kernel] += 1
        return layer


def _attend_floats(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b h k d"],
    v: Float[Tensor, "b h k d"],
    scale: float,
    bias: Float[Tensor, "h q k"] | None,
    mask: Bool[Tensor, "b k"] | None,
) -> Float[Tensor, "b h q d"]:
    """Return torch's attention of floats, a few sequences at a time if there are both a bias and masks."""
    bias = None if bias is None else bias.to(q.dtype)
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    masked = torch.where(mask, 0.0, MASKED_LOGIT).to(q.dtype)[:, None, None, :]
    if bias is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=masked, scale=scale)
    step = max(1, _BIAS_BYTES // max(1, bias.numel() * bias.element_size()))
    parts = [
        F.scaled_dot_product_attention(qs, ks, vs, attn_mask=bias + hidden, scale=scale)
        for qs, ks, vs, hidden in zip(q.split(step), k.split(step), v.split(step), masked.split(step), strict=True)
    ]
    return torch.cat(parts)
