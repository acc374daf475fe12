"""What steps know of the input of linear layers: its second moments, and a sample of its vectors."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Evidence", "Gatherer"]

_SEED = 20_231


@dataclass(frozen=True)
class Evidence:
    """The input x of linear layers, over all vectors along its last axis that calibration saw.

    Attributes
    ----------
    count : int
        Number of vectors.
    mean, absolute_mean, minimum, maximum : Tensor, shape=(c,)
        Per channel, of x and of |x|.
    gram : Tensor, shape=(c, c)
        Mean of x x^T: the squared error of an output row that is off by d is d^T gram d.
    rows : Tensor, shape=(n, c)
        Vectors drawn uniformly from all, in random order.
    """

    count: int
    mean: Float[Tensor, " c"]
    absolute_mean: Float[Tensor, " c"]
    minimum: Float[Tensor, " c"]
    maximum: Float[Tensor, " c"]
    gram: Float[Tensor, "c c"]
    rows: Float[Tensor, "n c"]

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
        self._sum = self._absolute_sum = self._gram = torch.zeros(())
        self._minimum, self._maximum = torch.tensor(torch.inf), torch.tensor(-torch.inf)
        self._rows = torch.empty(0)
        self._keys = torch.empty(0)
        self._generator = torch.Generator().manual_seed(_SEED)

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
        # In place: second moments of a wide layer take 100 MiB.
        self._gram = rows.T @ rows if self._gram.ndim == 0 else self._gram.to(rows).addmm_(rows.T, rows)
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
            mean=(self._sum / self._count).to(self._gram),
            absolute_mean=(self._absolute_sum / self._count).to(self._gram),
            minimum=self._minimum,
            maximum=self._maximum,
            gram=self._gram / self._count,
            rows=self._rows[order].to(self._gram),
        )
