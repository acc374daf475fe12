"""Softmax attention within each of several sequences whose tokens are rows of one matrix."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor

from protquant.kernels.operands import Grid
from protquant.kernels.sequence_tile import SequenceTile

__all__ = ["PROJECTED_BYTES", "OperandGrids", "Project", "SequenceAttention", "StepAttention"]

PROJECTED_BYTES = 2**24
"""Bytes of float32 queries, keys and values at a time on a CPU: they stay in the cache, and malloc reuses the memory.
"""

Project = Callable[[slice], Float[Tensor, "t n"]]
"""Returns the queries, keys and values of a few rows of a tile side by side: float32, before rounding, divided by the
scales of their grids if they have grids. The caller may overwrite them."""

OperandGrids = tuple[Grid | None, Grid | None, Grid | None]
"""Grids of queries, keys and values; None for one that is in float."""

Heads = tuple[Num[Tensor, "h t d"], Num[Tensor, "h t d"], Num[Tensor, "h t d"]]


class SequenceAttention(ABC):
    """Attention between the tokens of each sequence of a tile; the output of a head is divided by the scale of v.

    `Backend.sequence_attention` chooses a variant. Probabilities and values are multiplied in `dtype`.

    ======================  ========  ===================================  ==========================================
    variant                 dtype     exact                                error beside float32 rounding
    ======================  ========  ===================================  ==========================================
    `CodeAttention`         backend's  sums of products of q and k codes    as of `Backend.attention`
    `CPUCodeAttention`      float32   sums of products of q and k codes    none
    `CPUCodeAttention`      bfloat16  sums of products of q and k codes    2^-9 of probabilities and of the result
    `StepAttention`         float32   products of q and k that have grids  none
    `StepAttention`         bfloat16  products of q and k that have grids  2^-9 of probabilities, of the result, and
                                                                           of q, k and v that have no grid
    simulated attention     model's   nothing                              that of the float model in this type
    ======================  ========  ===================================  ==========================================

    A result that is off by 2^-9 of itself may be rounded to the next code of the grid of the output projection.

    Parameters
    ----------
    grids : tuple of Grid or None
    heads, channels : int
        Number of heads, and number of channels of all heads together.
    calls : Counter
        The backend's counter of calls.

    Attributes
    ----------
    scale : float
        Factor of the products of queries and keys.
    on_integers : bool
        Whether any operand is in codes.
    what : str
        Short description of the products, for tables.
    is_recordable : bool
        Whether nothing waits for the device after `SequenceTile.prepare` was called.
    """

    on_integers: bool = True
    what: str = ""
    is_recordable: bool = False

    def __init__(self, grids: OperandGrids, heads: int, channels: int, calls: Counter[tuple[str, str]]) -> None:
        self.grids, self.heads, self.channels, self.calls = grids, heads, channels, calls
        q_scale, k_scale = (1.0 if grid is None else grid.scale for grid in grids[:2])
        self.scale = q_scale * k_scale

    @abstractmethod
    def attend(self, project: Project, tile: SequenceTile) -> Float[Tensor, "t c"]:
        """Return the outputs of all heads for the rows of a tile, side by side."""

    @abstractmethod
    def attend_with_maps(
        self, project: Project, tile: SequenceTile
    ) -> tuple[Float[Tensor, "t c"], list[Float[Tensor, "h n n"]]]:
        """Return the outputs of all heads, and the attention probabilities of each sequence, which are not rounded."""

    def _by_head(
        self,
        project: Project,
        tile: SequenceTile,
        dtypes: Sequence[torch.dtype],
        rounded: Callable[[Float[Tensor, "t n"]], Sequence[Num[Tensor, "t c"]]],
    ) -> Heads:
        """Return queries, keys and values of a tile, head by head; a CPU computes and rounds a few rows at a time."""
        shape = self.heads, tile.tokens, self.channels // self.heads
        q, k, v = (torch.empty(shape, dtype=dtype, device=tile.device) for dtype in dtypes)
        step = tile.tokens if tile.device.type != "cpu" else PROJECTED_BYTES // (3 * 4 * self.channels)
        for first in range(0, tile.tokens, max(1, step)):
            some = slice(first, first + max(1, step))
            # Round before the axes are permuted.
            for out, part in zip((q, k, v), rounded(project(some)), strict=True):
                out[:, some] = part.unflatten(1, (self.heads, -1)).transpose(0, 1)
        return q, k, v

    def _result(self, tile: SequenceTile) -> Float[Tensor, "t h d"]:
        """Return memory for the outputs of the heads."""
        shape = tile.tokens, self.heads, self.channels // self.heads
        return torch.empty(shape, dtype=torch.float32, device=tile.device)


class StepAttention(SequenceAttention):
    """Torch's fused attention on floats that hold integers: codes less the zero points of their grids.

    Parameters
    ----------
    dtype : torch.dtype
        float32, or bfloat16, which holds integers up to 256 exactly.
    """

    def __init__(
        self, grids: OperandGrids, heads: int, channels: int, dtype: torch.dtype, calls: Counter[tuple[str, str]]
    ) -> None:
        super().__init__(grids, heads, channels, calls)
        self.dtype = dtype
        self.dtype_name = str(dtype).removeprefix("torch.")
        self.on_integers = any(grids)
        self.what = (
            f"steps of queries, keys and values held in {self.dtype_name}"
            if self.on_integers
            else f"queries, keys and values are in float, and are multiplied in {self.dtype_name}"
        )

    def attend(self, project: Project, tile: SequenceTile) -> Float[Tensor, "t c"]:
        operands = self._steps(project, tile)
        attended = self._result(tile)
        for some, length in tile.runs():
            self.calls["attention", f"torch SDPA, {self.dtype_name}"] += 1
            q, k, v = (part[:, some].unflatten(1, (-1, length)) for part in operands)
            out = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
            attended[some] = out.flatten(1, 2).transpose(0, 1)
        return attended.flatten(1)

    def attend_with_maps(
        self, project: Project, tile: SequenceTile
    ) -> tuple[Float[Tensor, "t c"], list[Float[Tensor, "h n n"]]]:
        operands, maps = self._steps(project, tile), []
        attended = self._result(tile)
        for some in tile.sequences:
            self.calls["attention", f"torch SDPA, {self.dtype_name}"] += 1
            q, k, v = (part[:, some].float() for part in operands)
            maps.append((q @ k.mT).mul_(self.scale).softmax(-1))
            attended[some] = (maps[-1] @ v).transpose(0, 1)
        return attended.flatten(1), maps

    def _steps(self, project: Project, tile: SequenceTile) -> Heads:
        return self._by_head(project, tile, [self.dtype] * 3, self._rounded)

    def _rounded(self, y: Float[Tensor, "t n"]) -> tuple[Float[Tensor, "t c"], ...]:
        """Round in place to whole steps, for operands that have grids."""
        parts = y.chunk(3, 1)
        for part, grid in zip(parts, self.grids, strict=True):
            if grid is not None:  # Round before a zero point is added, as quantizers do.
                part.round_().clamp_(grid.low - grid.zero, grid.high - grid.zero)
        return parts
