"""Self-attention of the language model on integers: projections, rotary positions, and the output projection."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from protquant.integer.linear import linear_twin
from protquant.integer.norm import normalized_codes
from protquant.integer.operands import (
    NoIntegerKernelError,
    input_grid,
    integer_weight,
    reordered,
    shared_input,
    stacked,
    tap_grid,
)
from protquant.integer.part import HoldsLayers, Runs, SupportRow
from protquant.kernels.backend import Backend, Linear
from protquant.kernels.operands import Grid, IntegerWeight
from protquant.kernels.sequence_attention import OperandGrids, Project, SequenceAttention
from protquant.kernels.sequence_tile import SequenceTile
from protquant.models.esm2 import SelfAttention
from protquant.quant.modules import QuantizedLinear
from protquant.sites import Tap

__all__ = ["IntegerSelfAttention"]

_PROJECTIONS = "q_proj", "k_proj", "v_proj"


class IntegerSelfAttention(HoldsLayers):
    """Twin of a quantized `SelfAttention` and of the norm before it.

    If the projections share an input, one product computes queries, keys and values. The weights contain the scales of
    their grids, so the results count steps. Outputs are in an order in which the two channels that a rotary embedding
    rotates are neighbors, so a rotation is a complex product, in place. `Backend.sequence_attention` multiplies
    queries, keys and values; if logits or probabilities are quantized too, `SimulatedAttention` does.

    Parameters
    ----------
    dtype : torch.dtype, optional
        Type of attention, see `Backend.sequence_attention`.
    stream_dtype : torch.dtype
        Type of the residual stream.

    Attributes
    ----------
    rows : list of SupportRow
        Execution of products and projections.
    """

    def __init__(
        self, attn: SelfAttention, backend: Backend, path: str, dtype: torch.dtype | None, stream_dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.backend = backend
        heads, channels = attn.num_heads, attn.q_proj.out_features
        self.products: SequenceAttention
        try:
            self.products = backend.sequence_attention(_operand_grids(attn, path), heads, channels, dtype)
        except NoIntegerKernelError as reason:
            self.products = SimulatedAttention(attn, stream_dtype, str(reason), backend.calls)
        runs: Runs = "integer" if self.products.on_integers else "simulated"
        self.rows = [SupportRow(f"{path}.products", runs, self.products.what)]
        q_scale, k_scale, self.value_scale = (1.0 if grid is None else grid.scale for grid in self.products.grids)
        # The simulation quantizes scaled queries.
        self.factors = attn.scale / q_scale, 1 / k_scale, 1 / self.value_scale
        self.order = _pairs_together(channels, heads)
        self._prepare_projections(attn, path)
        self._prepare_output(attn.out_proj, f"{path}.out_proj")

    def _prepare_projections(self, attn: SelfAttention, path: str) -> None:
        self.qkv: Linear | None = None
        try:
            self.grid, weights = shared_input(attn, _PROJECTIONS, path)
            orders = self.order, self.order, range(len(self.order))
            parts = [
                _scaled(reordered(weights[name], order), factor)
                for name, order, factor in zip(_PROJECTIONS, orders, self.factors, strict=True)
            ]
            self.qkv = self.backend.prepare(stacked(parts), self.grid)
            self.rows += [SupportRow(f"{path}.{name}", "integer", self.backend.kernel) for name in _PROJECTIONS]
        except NoIntegerKernelError:
            for name in _PROJECTIONS:
                twin, row = linear_twin(attn.get_submodule(name), self.backend, f"{path}.{name}")
                self.add_module(name, twin)
                self.rows.append(row)

    def _prepare_output(self, layer: nn.Module, path: str) -> None:
        self.out: Linear | None = None
        try:
            self.out_grid, weight = input_grid(layer, path), integer_weight(layer, path)
        except NoIntegerKernelError:
            self.out_proj, row = linear_twin(layer, self.backend, path)
            self.rows.append(row)
            return
        assert isinstance(layer, QuantizedLinear)
        self.transforms = layer.transforms
        if self.transforms is None:  # Output codes are computed from steps of the values.
            weight = replace(weight, scale=weight.scale * self.value_scale)
            if isinstance(self.out_grid, Grid):
                self.out_grid = self.out_grid.stretched(1 / self.value_scale)
            self.value_scale = 1.0
        self.out = self.backend.prepare(weight, self.out_grid)
        self.rows.append(SupportRow(path, "integer", self.backend.kernel))

    @property
    def is_recordable(self) -> bool:
        """Whether nothing waits for the device after tiles are prepared."""
        return self.products.is_recordable and self.qkv is not None and self.out is not None

    def add_to_(
        self,
        x: Float[Tensor, "t c"],
        norm: nn.Module,
        tile: SequenceTile,
        rotary: Complex[Tensor, "t p"],
        with_maps: bool = False,
    ) -> list[Float[Tensor, "h _ _"]]:
        """Add the output for the normalized rows of a tile to the rows in place; return attention maps, if wanted.

        Parameters
        ----------
        rotary : Tensor, shape=(t, p), complex
            Factors of each token's pairs of channels of a head.

        Returns
        -------
        list of Tensor
            Attention probabilities of each sequence, if wanted; float32, or the type of the stream where simulated.
        """

        def project(rows: slice) -> Float[Tensor, "r n"]:
            y = self._project(x[rows], norm)
            heads = y.unflatten(1, (3, self.products.heads, -1))
            torch.view_as_complex(heads[:, :2].unflatten(-1, (-1, 2))).mul_(rotary[rows, None, None])
            return y

        if with_maps:
            attended, maps = self.products.attend_with_maps(project, tile)
        else:
            attended, maps = self.products.attend(project, tile), []
        self._add_output(attended, x)
        return maps

    def _project(self, x: Float[Tensor, "t c"], norm: nn.Module) -> Float[Tensor, "t n"]:
        """Return queries, keys and values of rows side by side, float32, before their rotation."""
        if self.qkv is not None:
            return self.backend.linear(normalized_codes(self.backend, norm, x, self.grid), self.qkv)
        normalized = norm(x)
        parts = [self.get_submodule(name)(normalized).float() for name in _PROJECTIONS]
        q, k, v = (part * factor for part, factor in zip(parts, self.factors, strict=True))
        return torch.cat((q[:, self.order], k[:, self.order], v), dim=1)

    def _add_output(self, attended: Float[Tensor, "t c"], x: Float[Tensor, "t c"]) -> None:
        if self.value_scale != 1:
            attended = attended.float().mul_(self.value_scale)
        if self.out is None:
            x += self.out_proj(attended.to(x.dtype))
            return
        if self.transforms is not None:
            attended = self.transforms(attended.float())
        self.backend.linear(self.backend.quantize(attended, self.out_grid), self.out, residual=x)


class SimulatedAttention(SequenceAttention):
    """Attention with quantized logits or probabilities: decoded values are multiplied in float, as in simulation.

    Parameters
    ----------
    attn : SelfAttention
        Module with the quantizers.
    dtype : torch.dtype
        Type of the model.
    reason : str
        Reason why its products do not run on integers.
    """

    on_integers = False

    def __init__(self, attn: SelfAttention, dtype: torch.dtype, reason: str, calls: Counter[tuple[str, str]]) -> None:
        super().__init__((None, None, None), attn.num_heads, attn.q_proj.out_features, calls)
        self.q, self.k, self.v, self.logits, self.probs = attn.q, attn.k, attn.v, attn.logits, attn.probs
        self.dtype, self.what = dtype, reason

    def attend(self, project: Project, tile: SequenceTile) -> Float[Tensor, "t c"]:
        attended = self._result(tile)
        for some, out, _ in self._by_sequence(project, tile):
            attended[some] = out
        return attended.flatten(1)

    def attend_with_maps(
        self, project: Project, tile: SequenceTile
    ) -> tuple[Float[Tensor, "t c"], list[Float[Tensor, "h _ _"]]]:
        attended, maps = self._result(tile), []
        for some, out, probs in self._by_sequence(project, tile):
            attended[some] = out
            maps.append(probs)
        return attended.flatten(1), maps

    def _by_sequence(
        self, project: Project, tile: SequenceTile
    ) -> Iterator[tuple[slice, Float[Tensor, "n h d"], Float[Tensor, "h n n"]]]:
        """Yield rows, outputs and attention probabilities of each sequence."""
        operands = self._by_head(project, tile, [torch.float32] * 3, lambda y: y.chunk(3, 1))
        for some in tile.sequences:
            self.calls["attention", "simulated"] += 1
            q, k, v = (part[:, some] for part in operands)
            # Restore the order of channels that the quantizers expect.
            q, k = (part.unflatten(-1, (-1, 2)).mT.flatten(-2) for part in (q, k))
            q, k, v = (tap(x[None].to(self.dtype)) for tap, x in ((self.q, q), (self.k, k), (self.v, v)))
            logits = self.logits(q @ k.mT)
            probs: Tensor = self.probs(logits.softmax(dim=-1, dtype=torch.float32).to(self.dtype))
            yield some, (probs @ v)[0].transpose(0, 1), probs[0]


def _operand_grids(attn: SelfAttention, path: str) -> OperandGrids:
    for name in ("logits", "probs"):
        if not isinstance(attn.get_submodule(name), Tap):
            raise NoIntegerKernelError(f"{path}.{name} are quantized, and no integer kernel quantizes them")
    q, k, v = (tap_grid(attn.get_submodule(name), f"{path}.{name}") for name in "qkv")
    return q, k, v


def _scaled(weight: IntegerWeight, factor: float) -> IntegerWeight:
    """Return the weight and bias of outputs times `factor`."""
    bias = None if weight.bias is None else weight.bias * factor
    return replace(weight, scale=weight.scale * factor, bias=bias)


def _pairs_together(channels: int, heads: int) -> list[int]:
    """Return an order of channels in which the two channels of a head that rotate together are neighbors."""
    natural = torch.arange(channels).view(heads, 2, -1)
    order: list[int] = natural.mT.flatten().tolist()
    return order
