"""Softmax attention of sequences whose queries and keys are codes, in pieces that stay in cache."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8, Num
from torch import Tensor

from protquant.kernels.cpu.quantize import quantize_static
from protquant.kernels.sequence_attention import OperandGrids, Project, StepAttention
from protquant.kernels.sequence_tile import SequenceTile

__all__ = ["LOGITS", "LONGEST", "CPUCodeAttention", "attention_of_codes", "multiplies_codes"]

LOGITS = 2**19
"""Number of logits to process at a time: in int32, in float32, and in some cases in bfloat16."""
_SHORTEST = 17
"""Smallest number of rows that `torch._int_mm` accepts."""
LONGEST = 2048
"""Longest sequence whose logits of one head fit into the cache; beyond, attention without stored logits is faster."""


def multiplies_codes(length: int) -> bool:
    """Return whether the length allows to multiply queries and keys as integers: not if it is very short or long."""
    return _SHORTEST <= length <= LONGEST


class CPUCodeAttention(StepAttention):
    """Attention that multiplies codes of queries and keys as integers, and probabilities and values in `dtype`.

    Attention maps come from `StepAttention`, which holds the same steps in floats.
    """

    def __init__(
        self, grids: OperandGrids, heads: int, channels: int, dtype: torch.dtype, calls: Counter[tuple[str, str]]
    ) -> None:
        super().__init__(grids, heads, channels, dtype, calls)
        q, k, v = grids
        assert q is not None
        assert k is not None
        self.what = f"int8 queries and keys, float32 softmax, probabilities and values in {self.dtype_name}"
        self.zeros = q.signed.zero, k.signed.zero
        # If all three have the same codes, and zero points are 0, one pass over memory makes the codes.
        steps = {replace(grid, scale=1.0) for grid in (q, k, v) if grid is not None}
        self.one_grid = steps.pop() if v is not None and len(steps) == 1 and q.unsigned.zero == 128 else None

    def attend(self, project: Project, tile: SequenceTile) -> Float[Tensor, "t c"]:
        q, k, v = self._by_head(project, tile, (torch.int8, torch.int8, self.dtype), self._coded)
        for some in tile.sequences:
            coded = multiplies_codes(some.stop - some.start)
            self.calls["attention", "int8 queries and keys" if coded else f"torch SDPA, {self.dtype_name}"] += 1
        return attention_of_codes(q, k, v, tile.sequences, self.scale, *self.zeros).flatten(1)

    def _coded(self, y: Float[Tensor, "t n"]) -> tuple[Num[Tensor, "t c"], ...]:
        """Return signed codes of queries and keys, and steps of values; they reuse the memory of `y`."""
        if self.one_grid is not None:
            return quantize_static(y, self.one_grid).bitwise_xor_(128).view(torch.int8).chunk(3, 1)
        q, k, v = self._rounded(y)
        return q.add_(self.zeros[0]).to(torch.int8), k.add_(self.zeros[1]).to(torch.int8), v


def attention_of_codes(
    q: Int8[Tensor, "h t d"],
    k: Int8[Tensor, "h t d"],
    v: Float[Tensor, "h t d"],
    sequences: Iterable[slice],
    scale: float,
    q_zero: int = 0,
    k_zero: int = 0,
) -> Float[Tensor, "t h d"]:
    """Return `softmax(scale * (q - q_zero) (k - k_zero)^T) v` within each sequence.

    Sums of products of queries and keys are exact integers; logits and softmax are float32. If values are bfloat16,
    probabilities and results are rounded to bfloat16.

    Parameters
    ----------
    q, k : Tensor, shape=(h, t, d), dtype=int8
        Codes of packed sequences.
    v : Tensor, shape=(h, t, d), dtype=float32 or bfloat16
    sequences : iterable of slice
        Tokens of each sequence; together they cover all tokens.
    """
    heads, tokens, channels = q.shape
    out = torch.empty(tokens, heads, channels)
    # Allocate once: new memory costs more time than the computation in it.
    memory = _Memory(v.dtype)
    for some in sequences:
        if multiplies_codes(some.stop - some.start):
            _attend(q[:, some], k[:, some], v[:, some], scale, q_zero, out[some].transpose(0, 1), memory)
        else:
            queries, keys = q[None, :, some].to(v.dtype).sub_(q_zero), k[None, :, some].to(v.dtype).sub_(k_zero)
            attended = F.scaled_dot_product_attention(queries, keys, v[None, :, some], scale=scale)
            out[some] = attended[0].transpose(0, 1)
    return out


class _Memory:
    """Buffers for the products, logits and rounded probabilities of a few heads; they grow when needed."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._buffers = [torch.empty(0, dtype=each) for each in (torch.int32, torch.float32, dtype)]

    def of(self, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
        numel = torch.Size(shape).numel()
        if numel > self._buffers[0].numel():
            self._buffers = [torch.empty(numel, dtype=buffer.dtype) for buffer in self._buffers]
        sums, logits, probs = (buffer[:numel].view(shape) for buffer in self._buffers)
        return sums, logits, probs


def _attend(
    q: Int8[Tensor, "h i d"],
    k: Int8[Tensor, "h j d"],
    v: Float[Tensor, "h j d"],
    scale: float,
    q_zero: int,
    out: Float[Tensor, "h i d"],
    memory: _Memory,
) -> None:
    length = q.shape[1]
    # The zero point of keys shifts all logits of a query by the same amount, which does not change the softmax.
    by_key = k.sum(-1, dtype=torch.int32).mul(-scale * q_zero)[:, None] if q_zero else None
    step = max(1, LOGITS // length**2)
    for first in range(0, len(q), step):
        some = slice(first, min(first + step, len(q)))
        sums, logits, probs = memory.of(some.stop - some.start, length, length)
        for each, queries, keys in zip(sums.unbind(), q[some].unbind(), k[some].mT.unbind(), strict=True):
            torch._int_mm(queries, keys, out=each)  # noqa: SLF001
        # Convert first, then multiply: a product that also converts takes 1.5 times as long.
        logits.copy_(sums).mul_(scale)
        if by_key is not None:
            logits += by_key[some]
        torch.softmax(logits, -1, out=logits)
        out[some] = torch.bmm(logits if v.dtype == logits.dtype else probs.copy_(logits), v[some])
