"""Self-attention of the language model on integers, over packed sequences."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int8, Num
from torch import Tensor, nn

from protquant.integer.linear import input_grid
from protquant.integer.linear_twin import PartRow, linear_twin
from protquant.integer.norm import normalized_codes
from protquant.integer.operands import NoIntegerKernelError, integer_weight, reordered, stacked, tap_grid
from protquant.integer.packed_sequences import SequenceTile
from protquant.integer.readers import shared_input
from protquant.kernels.backend import Backend, Linear
from protquant.kernels.cpu import CPUBackend
from protquant.kernels.cpu.quantize import quantize_static
from protquant.kernels.cpu.sequence_attention import attention_of_codes, multiplies_codes
from protquant.kernels.operands import Codes8, Grid, IntegerWeight
from protquant.models.esm2 import SelfAttention
from protquant.quant.modules import QuantizedLinear
from protquant.sites import Tap

__all__ = ["PROJECTED_BYTES", "IntegerSelfAttention"]

_PROJECTIONS = "q_proj", "k_proj", "v_proj"
PROJECTED_BYTES = 2**24
"""Of float32 queries, keys and values that a CPU makes at a time: few enough for a cache, and for malloc to keep."""


class IntegerSelfAttention(nn.Module):
    """Twin of a quantized `SelfAttention`, called with what goes into the norm before it.

    Queries, keys and values come of one product where they read the same codes. Weights have their rows in such an
    order that the two channels which a rotary embedding turns together lie next to each other: a turn is a complex
    product then, in place.

    Where logits and probabilities are in float, queries, keys and values count steps of their grids from there on, from
    their zero points: small integers, exact in bfloat16. On a GPU they are codes, which the backend's own attention
    multiplies as it does those of the trunk, if `dtype` is what the backend likes. Where logits or probabilities are
    quantized too, attention is simulated: values of the same codes are multiplied in float.

    Parameters
    ----------
    dtype : torch.dtype, optional
        Of attention that is not simulated. float32: as exact as the float model. bfloat16: products of queries and keys
        that have grids are still exact, and softmax is float32; probabilities and what a head gives are rounded to 8
        significant bits each, and so are queries, keys and values without a grid. What a head gives is rounded to its
        grid next, so that some codes come out one step from where they would be. By default what the backend likes
        where queries, keys and values all have grids, and float32 where not.
    rows : list of tuple
        Is told what runs.
    """

    def __init__(
        self, attn: SelfAttention, backend: Backend, path: str, dtype: torch.dtype | None, rows: list[PartRow]
    ) -> None:
        super().__init__()
        self.backend = backend
        self.heads, self.channels = attn.num_heads, attn.q_proj.out_features
        self.q, self.k, self.v, self.logits, self.probs = attn.q, attn.k, attn.v, attn.logits, attn.probs
        self.grids: tuple[Grid | None, ...] = (None, None, None)
        self.simulated = False
        try:
            self.grids = _operand_grids(attn, path)
        except NoIntegerKernelError as reason:
            self.simulated = True
            rows.append((f"{path}.products", "simulated", str(reason)))
        self.dtype = dtype or (backend.update_dtype if all(self.grids) else torch.float32)
        cpu = backend if isinstance(backend, CPUBackend) else None
        multiplies = cpu is not None and cpu.can.int_mm
        self.on_codes = multiplies and self.grids[0] is not None and self.grids[1] is not None
        # Grids of the steps that are left when the scales have gone elsewhere.
        self.step_grids = _step_grids(self.grids)
        self.by_backend = cpu is None and self.step_grids is not None and self.dtype == backend.update_dtype
        # The one that all three are on, where their codes count from 0.
        one = self.step_grids[0] if self.step_grids is not None and len(set(self.step_grids)) == 1 else None
        self.step_grid = one if self.on_codes and one is not None and one.unsigned.zero == 128 else None
        if not self.simulated:
            rows.append((f"{path}.products", *self._what_attends))
        scales = [1.0 if grid is None else grid.scale for grid in self.grids]
        self.logit_scale = scales[0] * scales[1]
        # Queries are quantized after they are scaled.
        self.factors = attn.scale / scales[0], 1 / scales[1], 1 / scales[2]
        self.order = _pairs_together(self.channels, self.heads)
        self._prepare_projections(attn, path, rows)
        self._prepare_output(attn.out_proj, scales[2], f"{path}.out_proj", rows)

    def _prepare_projections(self, attn: SelfAttention, path: str, rows: list[PartRow]) -> None:
        self.qkv: Linear | None = None
        try:
            self.grid, weights = shared_input(attn, _PROJECTIONS, path)
            orders = self.order, self.order, range(self.channels)
            parts = [
                _scaled(reordered(weights[name], order), factor)
                for name, order, factor in zip(_PROJECTIONS, orders, self.factors, strict=True)
            ]
            self.qkv = self.backend.prepare(stacked(parts), self.grid)
            rows += [(f"{path}.{name}", "integer", self.backend.kernel) for name in _PROJECTIONS]
        except NoIntegerKernelError:
            for name in _PROJECTIONS:
                self.add_module(name, linear_twin(attn.get_submodule(name), self.backend, f"{path}.{name}", rows))

    def _prepare_output(self, layer: nn.Module, value_scale: float, path: str, rows: list[PartRow]) -> None:
        self.out: Linear | None = None
        self.value_scale = value_scale
        try:
            self.out_grid, weight = input_grid(layer, path), integer_weight(layer, path)
        except NoIntegerKernelError:
            self.out_proj = linear_twin(layer, self.backend, path, rows)
            return
        assert isinstance(layer, QuantizedLinear)
        self.transforms = layer.transforms
        if self.transforms is None:  # Codes are made of steps of values as they are.
            weight, self.value_scale = replace(weight, scale=weight.scale * value_scale), 1.0
            if isinstance(self.out_grid, Grid):
                self.out_grid = self.out_grid.stretched(1 / value_scale)
        self.out = self.backend.prepare(weight, self.out_grid)
        rows.append((path, "integer", self.backend.kernel))

    @property
    def is_recordable(self) -> bool:
        """Whether nothing waits for the device, once batches are padded."""
        return self.by_backend and self.qkv is not None and self.out is not None

    @property
    def _what_attends(self) -> tuple[str, str]:
        if self.by_backend:
            return "integer", "int8 queries, keys and values, float32 softmax"
        if self.on_codes:
            return "integer", f"int8 queries and keys, float32 softmax, probabilities and values in {self._dtype_name}"
        if any(self.grids):
            return "integer", f"steps of queries, keys and values held in {self._dtype_name}"
        return "simulated", f"queries, keys and values are in float, and are multiplied in {self._dtype_name}"

    @property
    def _dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def opened(self) -> Self:
        """The same with unpacked weights."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        if self.qkv is not None:
            other.qkv = self.backend.open(self.qkv)
        if self.out is not None:
            other.out = self.backend.open(self.out)
        return other

    def add_to_(
        self,
        x: Float[Tensor, "t c"],
        norm: nn.Module,
        tile: SequenceTile,
        turns: Complex[Tensor, "t p"],
        maps: list[Float[Tensor, "h n n"]] | None = None,
    ) -> None:
        """Add what comes of the normalized rows of a tile to the rows, in place.

        Parameters
        ----------
        turns : Tensor, shape=(t, p), complex
            By which each token's pairs of channels of a head are turned.
        maps : list, optional
            Is given the attention of each sequence, in float32.
        """
        if self.by_backend and maps is None:
            self._add_output(self._attend_codes(self._rotated(x, norm, turns), tile), x)
            return
        q, k, v = self._projected(x, norm, turns)
        if self.on_codes and maps is None:
            for some in tile.sequences:
                codes = multiplies_codes(some.stop - some.start)
                self.backend.calls[
                    "attention", "int8 queries and keys" if codes else f"torch SDPA, {self._dtype_name}"
                ] += 1
            zeros = (grid.signed.zero for grid in self.grids[:2] if grid is not None)
            attended = attention_of_codes(q, k, v, tile.sequences, self.logit_scale, *zeros)
        else:
            if self.on_codes:
                q, k = (self._steps(codes, grid) for codes, grid in zip((q, k), self.grids[:2], strict=True))
            attended = x.new_empty(len(x), self.heads, self.channels // self.heads, dtype=torch.float32)
            one_by_one = self.simulated or maps is not None
            for some, length in _of_one_length(tile.sequences, most=1 if one_by_one else None):
                queries, keys, values = (part[:, some].unflatten(1, (-1, length)) for part in (q, k, v))
                out, attention = self._attend(queries, keys, values, x.dtype, maps is not None)
                attended[some] = out.flatten(1, 2).transpose(0, 1)
                if maps is not None and attention is not None:
                    maps.append(attention)
        self._add_output(attended.flatten(1), x)

    def _projected(
        self, x: Float[Tensor, "t c"], norm: nn.Module, turns: Complex[Tensor, "t p"]
    ) -> tuple[Num[Tensor, "h t d"], Num[Tensor, "h t d"], Float[Tensor, "h t d"]]:
        """Rotated queries and keys, and values: in steps from their zero points where they have grids, or as codes."""
        shape = self.heads, len(x), self.channels // self.heads
        dtype = torch.float32 if self.simulated else self.dtype
        q, k = (x.new_empty(shape, dtype=torch.int8 if self.on_codes else dtype) for _ in range(2))
        v = x.new_empty(shape, dtype=dtype)
        step = max(1, PROJECTED_BYTES // (3 * 4 * self.channels)) if x.device.type == "cpu" else max(1, len(x))
        for first in range(0, len(x), step):
            some = slice(first, first + step)
            y = self._rotated(x[some], norm, turns[some])
            # Bytes are made in the order that is there, and then moved.
            for out, part in zip((q, k, v), self._rounded(y), strict=True):
                out[:, some] = part.view(len(y), self.heads, -1).transpose(0, 1)
        return q, k, v

    def _rotated(self, x: Float[Tensor, "t c"], norm: nn.Module, turns: Complex[Tensor, "t p"]) -> Float[Tensor, "t n"]:
        """Rotated queries and keys, and values, side by side, float32."""
        y = self._project(x, norm)
        heads = y.view(len(y), 3, self.heads, -1)
        torch.view_as_complex(heads[:, :2].unflatten(-1, (-1, 2))).mul_(turns[:, None, None])
        return y

    def _attend_codes(self, y: Float[Tensor, "t n"], tile: SequenceTile) -> Float[Tensor, "t c"]:
        """What the backend's own attention gives, in steps of values: one call for all sequences of similar length."""
        grids = self.step_grids
        assert grids is not None
        codes = self._codes(y, grids)
        if tile.length is not None:
            return self.backend.attention(codes, grids, self.heads, tile.length, self.logit_scale, None, None)
        attended = None
        for length, rows, valid, tokens, places in tile.padded:
            padded = replace(codes, data=codes.data[rows])
            some = self.backend.attention(padded, grids, self.heads, length, self.logit_scale, None, valid)
            if attended is None:
                attended = some.new_empty(len(y), self.channels)
            attended[tokens] = some[places]
        assert attended is not None
        return attended

    def _codes(self, y: Float[Tensor, "t n"], grids: tuple[Grid, Grid, Grid]) -> Codes8:
        if len(set(grids)) == 1:
            return self.backend.quantize(y, grids[0])
        parts = [self.backend.quantize(part, grid) for part, grid in zip(y.chunk(3, 1), grids, strict=True)]
        return replace(parts[0], data=torch.cat([part.data for part in parts], 1))

    def _rounded(self, y: Float[Tensor, "t n"]) -> tuple[Num[Tensor, "t c"], ...]:
        """Queries, keys and values in whole steps where they have grids, or as signed codes; takes their memory."""
        if self.step_grid is not None:
            return quantize_static(y, self.step_grid).bitwise_xor_(128).view(torch.int8).chunk(3, 1)
        q, k, v = y.chunk(3, 1)
        for part, grid in zip((q, k, v), self.grids, strict=True):
            if grid is not None:
                # Rounded before a zero point is added: so do quantizers.
                part.round_().clamp_(grid.low - grid.zero, grid.high - grid.zero)
                if self.on_codes and part is not v:
                    part.add_(grid.signed.zero)
        return (q.to(torch.int8), k.to(torch.int8), v) if self.on_codes else (q, k, v)

    def _steps(self, codes: Int8[Tensor, "h t d"], grid: Grid | None) -> Float[Tensor, "h t d"]:
        return codes.to(self.dtype).sub_(0 if grid is None else grid.signed.zero)

    def _project(self, x: Float[Tensor, "t c"], norm: nn.Module) -> Float[Tensor, "t n"]:
        if self.qkv is not None:
            return self.backend.linear(normalized_codes(self.backend, norm, x, self.grid), self.qkv)
        normalized = norm(x)
        parts = [self.get_submodule(name)(normalized).float() for name in _PROJECTIONS]
        q, k, v = (part * factor for part, factor in zip(parts, self.factors, strict=True))
        return torch.cat((q[:, self.order], k[:, self.order], v), dim=1)

    def _attend(
        self,
        q: Float[Tensor, "h s n d"],
        k: Float[Tensor, "h s n d"],
        v: Float[Tensor, "h s n d"],
        dtype: torch.dtype,
        with_map: bool,
    ) -> tuple[Float[Tensor, "h s n d"], Float[Tensor, "h n n"] | None]:
        """Attention within each of `s` sequences; of one only, where it is simulated or its map is wanted."""
        if self.simulated:
            self.backend.calls["attention", "simulated"] += 1
            out, attention = self._simulate(q[:, 0], k[:, 0], v[:, 0], dtype)
            return out[:, None], attention
        self.backend.calls["attention", f"torch SDPA, {self._dtype_name}"] += 1
        if with_map:  # What is looked at is not rounded.
            attention = (q.float() @ k.float().mT).mul_(self.logit_scale).softmax(-1)
            return attention @ v.float(), attention[:, 0]
        return F.scaled_dot_product_attention(q, k, v, scale=self.logit_scale), None

    def _simulate(
        self, q: Float[Tensor, "h n d"], k: Float[Tensor, "h n d"], v: Float[Tensor, "h n d"], dtype: torch.dtype
    ) -> tuple[Float[Tensor, "h n d"], Float[Tensor, "h n n"]]:
        """What `SelfAttention` does, for one sequence; channels go back to the order that its quantizers know."""
        q, k = (part.unflatten(-1, (-1, 2)).mT.flatten(-2) for part in (q, k))
        q, k, v = self.q(q[None].to(dtype)), self.k(k[None].to(dtype)), self.v(v[None].to(dtype))
        logits = self.logits(q @ k.mT)
        probs: Tensor = self.probs(logits.softmax(dim=-1, dtype=torch.float32).to(dtype))
        return (probs @ v)[0], probs[0]

    def _add_output(self, attended: Float[Tensor, "t c"], x: Float[Tensor, "t c"]) -> None:
        if self.value_scale != 1:
            attended = attended.float().mul_(self.value_scale)
        if self.out is None:
            x += self.out_proj(attended.to(x.dtype))
            return
        if self.transforms is not None:
            attended = self.transforms(attended.float())
        self.backend.linear(self.backend.quantize(attended, self.out_grid), self.out, residual=x)


def _of_one_length(sequences: Sequence[slice], most: int | None = None) -> Iterator[tuple[slice, int]]:
    """Neighbors of the same length, `most` of them, and that length."""
    first = 0
    while first < len(sequences):
        length = _length(sequences[first])
        after = first + 1
        while after < len(sequences) and after - first != most and _length(sequences[after]) == length:
            after += 1
        yield slice(sequences[first].start, sequences[after - 1].stop), length
        first = after


def _length(some: slice) -> int:
    return int(some.stop - some.start)


def _step_grids(grids: tuple[Grid | None, ...]) -> tuple[Grid, Grid, Grid] | None:
    """Grids of queries, keys and values with steps of 1; None where one of them has none."""
    q, k, v = grids
    if q is None or k is None or v is None:
        return None
    return replace(q, scale=1.0), replace(k, scale=1.0), replace(v, scale=1.0)


def _operand_grids(attn: SelfAttention, path: str) -> tuple[Grid | None, ...]:
    for name in ("logits", "probs"):
        if not isinstance(attn.get_submodule(name), Tap):
            raise NoIntegerKernelError(f"{path}.{name} are quantized, which no product of integers is followed by")
    return tuple(tap_grid(attn.get_submodule(name), f"{path}.{name}") for name in ("q", "k", "v"))


def _scaled(weight: IntegerWeight, factor: float) -> IntegerWeight:
    """The weight and bias of outputs times `factor`."""
    bias = None if weight.bias is None else weight.bias * factor
    return replace(weight, scale=weight.scale * factor, bias=bias)


def _pairs_together(channels: int, heads: int) -> list[int]:
    """Channels in such an order that those of a head which are turned together are neighbors."""
    natural = torch.arange(channels).view(heads, 2, -1)
    order: list[int] = natural.mT.flatten().tolist()
    return order
