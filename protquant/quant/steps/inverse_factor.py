"""Rows of the upper triangular U with U^T U = H^-1, which GPTQ needs, computed block by block.

H is the damped second moment of the input of a layer, with rows and columns in the order of rounding.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from protquant.quant.evidence import Evidence

__all__ = ["InverseFactor", "inverse_factor"]

_AT_ONCE = 512
"""Number of rows that `_OfVectors` computes at once; each time it factors a matrix with one row for each vector."""


class InverseFactor(Protocol):
    """Blocks of rows of U, from the first to the last."""

    def rows(self, start: int, end: int) -> Float[Tensor, "b d"]:
        """Return the rows from `start` to `end`, without the zeros before column `start`."""
        ...


def inverse_factor(
    evidence: Evidence, order: Integer[Tensor, " c"], damping: float, dtype: torch.dtype = torch.float32
) -> InverseFactor:
    """Return U for an order of columns.

    Parameters
    ----------
    evidence : Evidence
        Statistics of the input. If they contain the vectors themselves (few vectors of many channels), U is computed
        from these: a Cholesky decomposition of 10,240 channels takes three times as long.
    damping : float
        Added to the diagonal, as a share of its mean. Channels that were always 0 get the mean in addition.
    dtype : torch.dtype
        Type of the rows; the factorization is in double precision.
    """
    if evidence.vectors:
        return _OfVectors(torch.cat(evidence.vectors).to(order.device)[:, order], evidence.count, damping, dtype)
    return _OfMoments(evidence.gram.to(order.device), order, damping, dtype)


def _added(diagonal: Float[Tensor, " c"], damping: float) -> Float[Tensor, " c"]:
    """Return the damping to add to a diagonal."""
    mean = diagonal.mean()
    dead: Bool[Tensor, " c"] = diagonal <= 0
    return dead * mean + damping * (mean if mean > 0 else torch.ones_like(mean))


class _OfMoments:
    """Rows of U from one factorization of H.

    With J, which reverses the order, and J H J = L L^T, the factor is U = J L^-1 J, so that H^-1 = U^T U.
    """

    def __init__(
        self, gram: Float[Tensor, "c c"], order: Integer[Tensor, " c"], damping: float, dtype: torch.dtype
    ) -> None:
        reversed_order = order.flip(0)
        # In double precision: few channels of a protein language model have most of the trace, but errors are spread
        # over the small eigenvalues.
        damped = gram[reversed_order[:, None], reversed_order].double()
        diagonal = damped.diagonal()
        diagonal += _added(diagonal, damping)
        # In place, in the column order of LAPACK; then in `dtype`, because 10,240 channels take 800 MiB in double
        # precision.
        self._lower = torch.linalg.cholesky(damped.mT, out=damped.mT).to(dtype)

    def rows(self, start: int, end: int) -> Float[Tensor, "b d"]:
        channels = len(self._lower) - start
        rows = torch.eye(end - start, dtype=self._lower.dtype, device=self._lower.device)
        rows = F.pad(rows, (channels - len(rows), 0))
        lower = self._lower[:channels, :channels]
        return torch.linalg.solve_triangular(lower, rows, upper=False, left=False).flip(0, 1)


class _OfVectors:
    """Rows of U from fewer vectors than channels: H = D + A^T A, with D diagonal and A of few rows.

    Let R be the columns that are not rounded yet. The inverse of H_RR is D^-1 - D^-1 A^T M^-1 A D^-1, where M is I + A
    D^-1 A^T over the columns in R (the Woodbury identity). Its first rows yield rows of U; then their columns are
    subtracted from M. All computations are in double precision.
    """

    def __init__(self, vectors: Float[Tensor, "n c"], count: int, damping: float, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._scaled = vectors.double() / count**0.5
        self._added = _added((self._scaled**2).sum(0), damping)
        self._middle = torch.eye(len(vectors), dtype=torch.float64, device=vectors.device)
        self._middle.addmm_(self._scaled / self._added, self._scaled.T)
        self._made = torch.empty(0)
        self._first = self._last = 0  # the range of the rows in `_made`

    def rows(self, start: int, end: int) -> Float[Tensor, "b d"]:
        pieces = []
        while start < end:
            if start >= self._last:
                self._make()
            stop = min(end, self._last)
            pieces.append(self._made[start - self._first : stop - self._first, start - self._first :])
            start = stop
        widest = pieces[0].shape[1]
        return torch.cat([F.pad(piece, (widest - piece.shape[1], 0)) for piece in pieces])

    def _make(self) -> None:
        first = self._last
        last = min(first + _AT_ONCE, self._scaled.shape[1])
        block, rest = self._scaled[:, first:last], self._scaled[:, first:]
        added, added_rest = self._added[first:last], self._added[first:]
        solved = torch.cholesky_solve(block, torch.linalg.cholesky(self._middle))
        inverse = (solved.T @ rest).neg_().div_(added_rest).div_(added[:, None])
        inverse.diagonal().add_(1 / added)
        corner = torch.linalg.cholesky(inverse[:, : last - first])
        self._made = torch.linalg.solve_triangular(corner, inverse, upper=False).to(self._dtype)
        self._middle.addmm_(block / added, block.T, alpha=-1)
        self._first, self._last = first, last
