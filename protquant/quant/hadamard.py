"""Hadamard matrices: square, of entries +1 and -1, with orthogonal rows.

Matrices of sizes q + 1 and 2 (q + 1) follow from quadratic residues modulo a prime q (Paley 1933). The Kronecker
product of two Hadamard matrices is a Hadamard matrix (Sylvester 1867). So every width of ESM-2 and of ESMFold's trunk
has one: 320 = 16 x 20, 480 = 8 x 60, 640 = 32 x 20, 1280 = 64 x 20, 2560 = 128 x 20, 5120 = 256 x 20, and all powers of
two.
"""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from protquant.errors import ProtquantError

__all__ = ["hadamard_factors", "hadamard_matrix", "has_hadamard"]

# Up to this size, one product with the full matrix is faster than two products with its factors.
_SMALL = 256


def has_hadamard(size: int) -> bool:
    """Return whether `hadamard_matrix` can make a matrix of this size."""
    return size >= 1 and _paley_part(size) is not None


def hadamard_matrix(size: int) -> Float[Tensor, "n n"]:
    """Return a Hadamard matrix H of the given size n: entries +1 and -1, float64, H H^T = n I.

    Raises
    ------
    ProtquantError
        If the constructions in this file give none: sizes above 2 must be multiples of 4, and some of these are
        missing.
    """
    part = _paley_part(size) if size >= 1 else None
    if part is None:
        raise ProtquantError(f"no Hadamard matrix of size {size} is known here; 4, 12, 20, 28, 36, 60 times 2^k are")
    return torch.kron(_sylvester(size // part), _paley(part))


@lru_cache(maxsize=64)
def hadamard_factors(
    size: int, dtype: torch.dtype, device: torch.device
) -> tuple[Float[Tensor, "a a"], Float[Tensor, "b b"]]:
    """Return orthogonal A and B whose Kronecker product is `hadamard_matrix(size)` / sqrt(size).

    Multiplying a vector of n = a b elements by both takes n (a + b) multiplications instead of n^2.
    """
    part = _paley_part(size)
    if part is None or size <= _SMALL:
        outer, inner = torch.ones(1, 1, dtype=torch.float64), hadamard_matrix(size)
    elif part == 1:
        half = 2 ** (size.bit_length() // 2)
        outer, inner = _sylvester(size // half), _sylvester(half)
    else:
        outer, inner = _sylvester(size // part), _paley(part)
    first, second = (factor / len(factor) ** 0.5 for factor in (outer, inner))
    return first.to(device, dtype), second.to(device, dtype)


def _paley_part(size: int) -> int | None:
    """Return the smallest n = `size` / 2^k that has a Paley matrix: 1 for powers of two, None if there is none."""
    odd = size
    while odd % 2 == 0:
        odd //= 2
    part = odd
    while part <= size:
        if part == 1 or _is_paley(part):
            return part
        part *= 2
    return None


def _is_paley(size: int) -> bool:
    return size % 4 == 0 and (_is_prime(size - 1) or (size % 8 == 4 and _is_prime(size // 2 - 1)))


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _sylvester(size: int) -> Tensor:
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), matrix)
    return matrix


def _paley(size: int) -> Tensor:
    if size == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    # Size is a multiple of 4. So size - 1 is 3 modulo 4; if it is not prime, size / 2 - 1 is a prime that is 1 modulo
    # 4.
    first_kind = _is_prime(size - 1)
    q = size - 1 if first_kind else size // 2 - 1
    # 1 for quadratic residues modulo q, -1 for the rest, 0 for 0.
    character = torch.full((q,), -1.0, dtype=torch.float64)
    character[torch.arange(1, q) ** 2 % q] = 1
    character[0] = 0
    index = torch.arange(q)
    conference = torch.zeros(q + 1, q + 1, dtype=torch.float64)
    conference[0, 1:] = 1
    conference[1:, 0] = -1 if first_kind else 1
    conference[1:, 1:] = character[(index[:, None] - index) % q]
    identity = torch.eye(q + 1, dtype=torch.float64)
    if first_kind:
        return identity + conference
    plus, minus = torch.tensor([[[1, 1], [1, -1]], [[1, -1], [-1, -1]]], dtype=torch.float64)
    return torch.kron(conference, plus) + torch.kron(identity, minus)
