"""Products and differences of pairs of residues as int8 codes: how the single representation enters the pair."""

import torch
from jaxtyping import Float, Int8, Integer
from torch import Tensor

from protquant.kernels.reference.quantize import check_matrix, check_scale, quantize_int8

__all__ = ["check_outer", "outer_quantize"]


def outer_quantize(
    q: Float[Tensor, "j d"],
    k: Float[Tensor, "i d"],
    scale: Float[Tensor, " 1"],
    zero: Integer[Tensor, " 1"] | None = None,
    low: int = -128,
    high: int = 127,
) -> Int8[Tensor, "i j 2*d"]:
    """Codes of `q_j * k_i` and, behind them, of `q_j - k_i`, for all i and j; float32 before they are rounded.

    Parameters
    ----------
    q, k : Tensor, shape=(j, d), (i, d)
        Projections of residues, finite; rows may be strided. Fewer rows of k give a tile of rows of the result.
    scale, zero, low, high
        As of `quantize_int8`.

    Raises
    ------
    ValueError
        For shapes, dtypes or codes that do not fit.
    """
    check_outer(q, k)
    check_scale(scale, zero, low, high)
    columns, rows = q.float()[None, :, :], k.float()[:, None, :]
    outer = torch.cat((columns * rows, columns - rows), dim=-1)
    return quantize_int8(outer.flatten(0, 1), scale, zero, low, high).view(outer.shape)


def check_outer(q: Tensor, k: Tensor) -> None:
    """Raise ValueError unless `q` and `k` are matrices of floats with as many channels."""
    check_matrix(q)
    check_matrix(k)
    if q.shape[1] != k.shape[1]:
        raise ValueError(f"q has {q.shape[1]} channels, and k has {k.shape[1]}")
