"""What steps know of the input of linear layers: its second moments, and a sample of its vectors."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from protquant.quant.observers import SAMPLE_SEED

__all__ = ["Evidence", "Gatherer"]

_CHANNELS_A_VECTOR = 4
"""Vectors are kept themselves while there are so many channels for each: they take less memory than their moments."""


@dataclass(frozen=True)
class Evidence:
    """The input x of linear layers, over all vectors along its last axis that calibration saw.

    Attributes
    ----------
    count : int
        Number of vectors.
    mean, absolute_mean, minimum, maximum : Tensor, shape=(c,)
        Per channel, of x and of |x|.
    rows : Tensor, shape=(n, c)
        Vectors drawn uniformly from all, in random order.
    moments : Tensor, shape=(c, c), or None
        Mean of x x^T; None where `vectors` are kept instead.
    vectors : tuple of Tensor, each of shape=(n, c)
        All vectors, where they are few beside their channels; otherwise empty.
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
        """Mean of x x^T: the squared error of an output row that is off by d is d^T gram d."""
        return _sum_of_squares(self.vectors) / self.count if self.moments is None else self.moments

    @property
    def square_mean(self) -> Float[Tensor, " c"]:
        """Mean square of each channel."""
        if self.moments is not None:
            return self.moments.diagonal()
        return torch.stack([(each**2).sum(0) for each in self.vectors]).sum(0) / self.count

    @property
    def absolute_maximum(self) -> Float[Tensor, " c"]:
        """Largest |x| of each channel."""
        return torch.maximum(-self.minimum, self.maximum)

    def output_error(self, difference: Float[Tensor, "o c"]) -> float:
        """Mean over vectors of |D x|^2, for a difference D of two weights."""
        return ((difference @ self.gram) * difference).sum().item()


class Gatherer:
    """Gathers the `Evidence` of one tensor.

    Parameters
    ----------
    num_rows : int
        How many vectors to keep.
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
        """See one tensor."""
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
        # Every vector draws a number, and the smallest stay: a uniform sample whatever the lengths of the calls.
        keys = torch.rand(len(rows), generator=self._generator)
        drawn = keys.topk(min(self.num_rows, len(rows)), largest=False)
        kept = rows[drawn.indices.to(rows.device)].cpu()
        self._keys = torch.cat((self._keys, drawn.values))
        self._rows = torch.cat((self._rows, kept)) if self._rows.numel() else kept
        if len(self._keys) > self.num_rows:
            best = self._keys.topk(self.num_rows, largest=False)
            self._keys, self._rows = best.values, self._rows[best.indices]

    def evidence(self) -> Evidence | None:
        """What was seen until now; None if nothing was."""
        if not self._count:
            return None
        order = self._keys.argsort()  # the first of them are a uniform sample too
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
    """The sum of x x^T, one tensor after the other, added to `total`."""
    for each in vectors:
        # In place: second moments of a wide layer take 400 MiB.
        total = each.T @ each if total is None else total.to(each).addmm_(each.T, each)
    assert total is not None
    return total
