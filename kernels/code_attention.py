"""Attention within packed sequences that calls `Backend.attention` on codes of one byte."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from protquant.kernels.backend import Backend
from protquant.kernels.operands import Codes8, Grid
from protquant.kernels.sequence_attention import OperandGrids, Project, SequenceAttention, StepAttention
from protquant.kernels.sequence_tile import SequenceTile

__all__ = ["CodeAttention", "attention_by_codes"]


class CodeAttention(StepAttention):
    """Attention on codes by `Backend.attention`: one call for all sequences of similar length.

    Attention maps come from `StepAttention`, which holds the same steps in floats.
    """

    is_recordable = True

    def __init__(self, backend: Backend, grids: tuple[Grid, Grid, Grid], heads: int, channels: int) -> None:
        super().__init__(grids, heads, channels, backend.update_dtype, backend.calls)
        self.what = "int8 queries, keys and values, float32 softmax"
        self.backend = backend
        # The scales of q and k are in `scale`; the reader of the result applies the scale of v.
        q, k, v = (replace(grid, scale=1.0) for grid in grids)
        self.step_grids = q, k, v

    def attend(self, project: Project, tile: SequenceTile) -> Float[Tensor, "t c"]:
        codes = self._codes(project(slice(0, tile.tokens)))
        if tile.length is not None:
            return self._attention(codes, tile.length, None)
        attended = None
        for length, rows, valid, tokens, places in tile.padded:
            some = self._attention(replace(codes, data=codes.data[rows]), length, valid)
            if attended is None:
                attended = some.new_empty(tile.tokens, self.channels)
            attended[tokens] = some[places]
        assert attended is not None
        return attended

    def _attention(self, codes: Codes8, length: int, valid: Tensor | None) -> Float[Tensor, "m c"]:
        return self.backend.attention(codes, self.step_grids, self.heads, length, self.scale, None, valid)

    def _codes(self, y: Float[Tensor, "t n"]) -> Codes8:
        grids = self.step_grids
        if len(set(grids)) == 1:
            return self.backend.quantize(y, grids[0])
        parts = [self.backend.quantize(part, grid) for part, grid in zip(y.chunk(3, 1), grids, strict=True)]
        return replace(parts[0], data=torch.cat([part.data for part in parts], 1))


def attention_by_codes(
    backend: Backend, grids: OperandGrids, heads: int, channels: int, dtype: torch.dtype | None
) -> SequenceAttention:
    """Return `CodeAttention` if all operands have grids and `dtype` is the backend's, else `StepAttention`."""
    q, k, v = grids
    if q is not None and k is not None and v is not None and dtype in (None, backend.update_dtype):
        return CodeAttention(backend, (q, k, v), heads, channels)
    return StepAttention(grids, heads, channels, dtype or torch.float32, backend.calls)
