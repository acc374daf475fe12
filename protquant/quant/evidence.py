"""Statistics of the inputs of linear layers, for steps: second moments, and a sample of vectors."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from protquant.quant.observers import SAMPLE_SEED

__all__ = ["Evidence", "Gatherer"]

_CHANNELS_A_VECTOR = 4
"""Vectors are stored while there are at least this many channels per vector: they are smaller than the moments."""


@dataclass(frozen=True)
class Evidence:
    """Statistics of the input x of linear layers, over all vectors (along the last axis) of the calibration.

    Attributes
    ----------
    count : int
        Number of vectors.
    mean, absolute_mean, minimum, maximum : Tensor, shape=(c,)
        Mean of x, mean of |x|, minimum and maximum of x per channel.
    rows : Tensor, shape=(n, c)
        Uniform sample of the vectors, in random order.
    moments : Tensor, shape=(c, c), or None
        Mean of x x^T; None if `vectors` are stored instead.
    vectors : tuple of Tensor, each of shape=(n, c)
        All vectors, if they are few compared with their channels; otherwise empty.
    """

    count: int
    mean: Float[Tensor, " c"]
    absolute_mean: Float[Tensor, " c"]
    minimum: Float[Tensor, " c"]
    maximum: Float[Tensor, " c"]
    rows: Float[Tensor, "n c"]
    moments: Float[Tensor, "c c"] | None
    vectors: tuple[Float[Tensor, "_ c"], ...] = ()

    @cached_property
    def gram(self) -> Float[Tensor, "c c"]:
        """Mean of x x^T. If a weight row has the error d, the mean squared error of its output is d^T gram d."""
        return _sum_of_squares(self.vectors) / self.count if self.moments is None else self.moments

    @property
    def square_mean(self) -> Float[Tensor, " c"]:
        """Mean square of each channel."""
        if self.moments is not None:
            return self.moments.diagonal()
        return torch.stack([(block**2).sum(0) for block in self.vectors]).sum(0) / self.count

    @property
    def absolute_maximum(self) -> Float[Tensor, " c"]:
        """Largest |x| of each channel."""
        return torch.maximum(-self.minimum, self.maximum)

    def output_error(self, difference: Float[Tensor, "o c"]) -> float:
        """Return the mean over vectors of |D x|^2, for the difference D of two weights."""
        return ((difference @ self.gram) * difference).sum().item()


class Gatherer:
    """Gathers the `Evidence` of one tensor.

    Parameters
    ----------
    num_rows : int
        Number of vectors to sample.
    """

    def __init__(self, num_rows: int = 1024) -> None:
        self.num_rows = num_rows
        self._count = 0
        self._sum = self._absolute_sum = torch.zeros(())
        self._gram: Tensor | None = None
        self._vectors: list[Tensor] = []
        self._minimum, self._maximum = torch.tensor(torch.inf), torch.tensor(-torch.inf)
        self._rows = torch.empty(0)
        self._keys = torch.empty(0)
        self._generator = torch.Generator().manual_seed(SAMPLE_SEED)

    def update(self, x: Float[Tensor, "... c"]) -> None:
        """Add one tensor."""
        rows = x.detach().reshape(-1, x.shape[-1])
        if not len(rows):
            return
        rows = rows if rows.dtype == torch.float64 else rows.float()
        self._count += len(rows)
        self._sum = self._sum + rows.sum(0).double()
        self._absolute_sum = self._absolute_sum + rows.abs().sum(0).double()
        self._minimum = torch.minimum(self._minimum.to(rows), rows.amin(0))
        self._maximum = torch.maximum(self._maximum.to(rows), rows.amax(0))
        if self._gram is None and self._count * _CHANNELS_A_VECTOR <= rows.shape[1]:
            self._vectors.append(rows.clone())
        else:
            self._gram = _sum_of_squares([*self._vectors, rows], self._gram)
            self._vectors = []
        # Every vector gets a random key, and those with the smallest keys stay: a uniform sample for calls of any
        # length.
        keys = torch.rand(len(rows), generator=self._generator)
        drawn = keys.topk(min(self.num_rows, len(rows)), largest=False)
        sampled = rows[drawn.indices.to(rows.device)].cpu()
        self._keys = torch.cat((self._keys, drawn.values))
        self._rows = torch.cat((self._rows, sampled)) if self._rows.numel() else sampled
        if len(self._keys) > self.num_rows:
            best = self._keys.topk(self.num_rows, largest=False)
            self._keys, self._rows = best.values, self._rows[best.indices]

    def evidence(self) -> Evidence | None:
        """Return the statistics of all tensors so far; None if there were none."""
        if not self._count:
            return None
        order = self._keys.argsort()  # so that the first rows are a uniform sample as well
        return Evidence(
            count=self._count,
            mean=(self._sum / self._count).to(self._minimum),
            absolute_mean=(self._absolute_sum / self._count).to(self._minimum),
            minimum=self._minimum,
            maximum=self._maximum,
            rows=self._rows[order].to(self._minimum),
            moments=None if self._gram is None else self._gram / self._count,
            vectors=tuple(self._vectors),
        )


def _sum_of_squares(vectors: Iterable[Float[Tensor, "_ c"]], total: Tensor | None = None) -> Float[Tensor, "c c"]:
    """Return `total` plus the sum of x x^T over all vectors; `total` is changed in place."""
    for block in vectors:
        # In place: second moments of a wide layer take 400 MiB.
        total = block.T @ block if total is None else total.to(block).addmm_(block.T, block)
    assert total is not None
    return total
