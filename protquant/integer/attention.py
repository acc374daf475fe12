"""Gated attention on integers: the shared part of attention over residues and attention over edges of triangles."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from protquant.integer.operands import NoIntegerKernelError, only_input, tap_grid
from protquant.integer.part import HoldsLayers
from protquant.kernels.backend import Backend
from protquant.kernels.operands import Codes8, Grid, IntegerWeight, TokenGrid
from protquant.sites import Tap

__all__ = ["GatedAttention"]


class GatedAttention(HoldsLayers):
    """Attention with its gate, from codes of the normalized input to a sum with the residual.

    Parameters
    ----------
    module : nn.Module
        Has the taps `q`, `k`, `v`, `logits` and `probs`, and the quantized layer `out_proj`.
    qkv : IntegerWeight
        Weight whose outputs are queries, then keys, then values, each head by head.
    gate : IntegerWeight
    grid : Grid or TokenGrid
        Grid of the input codes of both weights.
    heads : int
    scale : float
        Factor of the logits.

    Raises
    ------
    NoIntegerKernelError
        If a layer or product of it has no integer kernel.
    """

    def __init__(
        self,
        module: nn.Module,
        qkv: IntegerWeight,
        gate: IntegerWeight,
        grid: Grid | TokenGrid,
        backend: Backend,
        path: str,
        *,
        heads: int,
        scale: float,
    ) -> None:
        super().__init__()
        if not (isinstance(module.logits, Tap) and isinstance(module.probs, Tap)):
            raise NoIntegerKernelError(f"{path}: attention logits or probabilities are quantized")
        taps = {n: tap_grid(module.get_submodule(n), f"{path}.{n}") for n in "qkv"}
        self.backend = backend
        self.heads, self.scale = heads, scale
        self.grids: tuple[Grid, Grid, Grid] | None = None
        outs: list[tuple[Grid, int]] = []
        q, k, v = taps.values()
        if q is not None and k is not None and v is not None:
            # The simulation quantizes scaled queries; unscaled ones need the same grid divided by the scale.
            outs = [(each, qkv.out_features // 3) for each in (q.stretched(1 / self.scale), k, v)]
            self.grids, self.scale = (q, k, v), 1.0
        elif any(taps.values()):
            raise NoIntegerKernelError(f"{path}: of q, k and v some are in float and some are not")
        self.qkv = backend.prepare(qkv, grid, outs=outs)
        self.gate = backend.prepare(gate, grid)
        self.out_grid, out = only_input(module, "out_proj", path)
        self.out = backend.prepare(out, self.out_grid)

    def add_to_(
        self,
        codes: Codes8,
        residual: Float[Tensor, "b l c"],
        bias: Float[Tensor, "h q k"],
        mask: Bool[Tensor, "b l"] | None,
    ) -> None:
        """Attend along `l`, and add the output to the residual in place; `codes` are the normalized rows."""
        backend, length = self.backend, residual.shape[1]
        heads = backend.linear(codes, self.qkv) if self.grids is None else backend.linear_codes(codes, self.qkv)
        attended = backend.attention(heads, self.grids, self.heads, length, self.scale, bias, mask)
        gated = backend.gated_codes(codes, self.gate, attended, self.out_grid)
        if residual.is_contiguous():
            backend.linear(gated, self.out, residual=residual.flatten(0, 1))
        else:
            residual += backend.linear(gated, self.out, torch.float32).view(residual.shape)
