"""Exact triangle products of signed bytes in float32, for CPUs whose product of bytes saturates or is slow."""

from collections.abc import Callable

import torch
from jaxtyping import Int8, Shaped
from torch import Tensor

__all__ = ["float_operand_bytes", "float_triangle_product"]

_EXACT = 2**24
"""Integers up to this limit are exact in float32, and so are sums that stay below it."""
_OPERAND_BYTES = 2**22
"""Bytes of operands that are converted to float32 at a time, so that they stay in the cache."""


def float_triangle_product(
    left: Int8[Tensor, "c i k"],
    right: Int8[Tensor, "c k j"],
    zeros: tuple[int, int],
    space: Callable[[str, torch.dtype, int], Tensor],
) -> Shaped[Tensor, "c i j"]:
    """Return the sum over k of `(left - zeros[0]) (right - zeros[1])`.

    Parameters
    ----------
    left, right : Tensor, dtype=int8
        Codes, with any strides.
    space : callable
        Returns a reused buffer, given a name, a type and a number of elements.

    Returns
    -------
    Tensor, shape=(c, i, j), dtype=float32 or int32
        float32 if it holds every possible sum exactly; otherwise k is split, and the parts are added in int32.
    """
    channels, rows, length = left.shape
    columns = right.shape[2]
    most = _most_exact(zeros)
    whole = length <= most
    total = space("product", torch.float32 if whole else torch.int32, channels * rows * columns)
    total = total.view(channels, rows, columns)
    length_at_once = min(length, most)
    step = max(1, _OPERAND_BYTES // (4 * max(1, length_at_once) * (rows + columns)))
    for first in range(0, channels, step):
        some = total[first : first + step]
        if whole:
            torch.bmm(*_operands(left, right, zeros, slice(first, first + step), slice(0, length), space), out=some)
            continue
        some.zero_()
        for start in range(0, length, most):
            part = slice(first, first + step), slice(start, start + most)
            some += torch.bmm(*_operands(left, right, zeros, *part, space)).to(torch.int32)
    return total


def float_operand_bytes(rows: int, length: int) -> int:
    """Return the bytes of operands that are in float32 at a time, for a product of `rows` by `length`."""
    return max(_OPERAND_BYTES, 4 * length * (rows + length))


def _most_exact(zeros: tuple[int, int]) -> int:
    """Return how many products of codes, less zero points, float32 sums exactly in the worst case."""
    largest = [max(zero + 128, 127 - zero) for zero in zeros]
    return _EXACT // (largest[0] * largest[1])


def _operands(
    left: Int8[Tensor, "c i k"],
    right: Int8[Tensor, "c k j"],
    zeros: tuple[int, int],
    channels: slice,
    summed: slice,
    space: Callable[[str, torch.dtype, int], Tensor],
) -> tuple[Tensor, Tensor]:
    """Return both operands as float32, in their memory order."""
    floats = []
    for name, codes, zero in (
        ("left", left[channels, :, summed], zeros[0]),
        ("right", right[channels, summed], zeros[1]),
    ):
        turned = codes.stride(1) < codes.stride(2)
        natural = codes.mT if turned else codes
        values = space(name, torch.float32, codes.numel()).view(natural.shape).copy_(natural)
        if zero:
            values -= zero
        floats.append(values.mT if turned else values)
    return floats[0], floats[1]
