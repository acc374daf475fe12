"""Hadamard matrices of all widths of ESM-2 and ESMFold are orthogonal, with entries of one size."""

import pytest
import torch

from protquant.errors import ProtquantError
from protquant.quant.hadamard import hadamard_factors, hadamard_matrix, has_hadamard
from protquant.quant.rotations import random_rotation

KNOWN = [1, 2, 4, 12, 16, 20, 24, 28, 32, 36, 40, 60, 128, 160, 192, 320, 480, 640, 1024, 1280, 2560]


@pytest.mark.parametrize("size", KNOWN)
def test_rows_are_orthogonal_and_entries_are_signs(size: int):
    matrix = hadamard_matrix(size)
    assert matrix.shape == (size, size)
    assert torch.equal(matrix.abs(), torch.ones_like(matrix))
    assert torch.equal(matrix @ matrix.T, size * torch.eye(size, dtype=torch.float64))


def test_the_widest_layers_have_one():
    # Orthogonality from products with random vectors, which is cheap: |x H| = |x| sqrt(n) for all x.
    for size in (5120, 10_240):
        outer, inner = hadamard_factors(size, torch.float64, torch.device("cpu"))
        x = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        turned = (outer.T @ x.view(len(outer), -1) @ inner).flatten()
        torch.testing.assert_close(turned.norm(), x.norm())
        assert torch.allclose(outer.abs(), outer.new_tensor(len(outer) ** -0.5))
        assert torch.allclose(inner.abs(), inner.new_tensor(len(inner) ** -0.5))


@pytest.mark.parametrize("size", [320, 480, 512, 1024, 1280])
def test_factors_multiply_to_the_matrix(size: int):
    outer, inner = hadamard_factors(size, torch.float64, torch.device("cpu"))
    assert len(outer) > 1
    torch.testing.assert_close(torch.kron(outer, inner), hadamard_matrix(size) / size**0.5)


@pytest.mark.parametrize("size", [0, 3, 6, 10, 52, 92])
def test_a_size_without_a_known_matrix_is_refused(size: int):
    assert not has_hadamard(size)
    with pytest.raises(ProtquantError, match=f"size {size}"):
        hadamard_matrix(size)


@pytest.mark.parametrize("size", [10, 16, 20, 320, 1024])
def test_a_rotation_keeps_lengths_and_is_undone_by_its_inverse(size: int):
    rotation = random_rotation(size, torch.Generator().manual_seed(1))
    x = torch.randn(3, 5, size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(rotation(x).norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(rotation.copied(inverse=True)(rotation(x)), x)
    matrix = rotation(torch.eye(size, dtype=torch.float64))
    torch.testing.assert_close(rotation(x), x @ matrix)
    assert rotation.is_hadamard == has_hadamard(size)
    if rotation.is_hadamard:
        torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, size**-0.5))


def test_signs_are_drawn_from_the_generator():
    first, again, other = (random_rotation(64, torch.Generator().manual_seed(seed)).signs for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_rotation_costs_less_than_a_matrix_where_it_has_factors():
    generator = torch.Generator().manual_seed(0)
    assert random_rotation(2560, generator).multiplications == 2560 * (128 + 20)
    assert random_rotation(10, generator).multiplications == 10**2
