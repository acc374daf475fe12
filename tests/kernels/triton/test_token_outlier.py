"""Tokens with outliers decode to what those of the reference do, and are the same where no magnitudes are equal."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.reference import token_outlier_rows as reference
from protquant.kernels.triton.token_outlier import quantize_token_outlier

SIZES = (1, 3, 17, 127, 129, 200)
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def distinct(m: int, c: int) -> Tensor:
    """Rows without equal magnitudes, of either sign, with a few large ones; exact in every float."""
    magnitudes = torch.stack([torch.randperm(256)[:c] for _ in range(m)]).float() / 8
    x = magnitudes * torch.randint(0, 2, (m, c)).sub(0.5).sign()
    return torch.where(magnitudes > 29, 4 * x, x)


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("c", SIZES)
def test_codes_are_those_of_the_reference(m: int, c: int):
    torch.manual_seed(m * c)
    bits, outliers = (4, 8)[(m + c) // 2 % 2], (0, 1, 4)[c % 3]
    x = distinct(m, c).to(FLOATS[m % 3])
    # Rows lie apart, or columns do.
    x = torch.cat((x, x), dim=1)[:, :c] if c % 2 else x.T.contiguous().T
    found = quantize_token_outlier(x, bits, outliers)
    for one, other in zip(found, reference.quantize_token_outlier(x, bits, outliers), strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("outliers", [1, 2, 3, 16, 17, 40])
def test_of_equal_magnitudes_any_may_be_the_outliers(bits: int, outliers: int):
    torch.manual_seed(outliers)
    x = torch.randint(-3, 4, (50, 17)).float()
    x[::2, 5] = 300.0  # above equal ones
    x[0], x[1], x[2] = 0.0, 2.0, -1e30
    found, expected = (each(x, bits, outliers) for each in (quantize_token_outlier, reference.quantize_token_outlier))
    assert torch.equal(found.scales, expected.scales)
    # The same magnitudes are taken out, whichever of the channels that have them.
    assert torch.equal(found.outliers.int().abs().sort().values, expected.outliers.int().abs().sort().values)
    assert bool((found.indices.int().diff() > 0).all())
    values = reference.dequantize_token_outlier(found, 17)
    assert torch.equal(values, reference.dequantize_token_outlier(expected, 17))


def test_an_outlier_is_never_too_large_for_16_bits():
    x = torch.full((2, 33), 1e-4)
    x[0, 7], x[1, 30] = 1e30, -5e4
    found, expected = (each(x, 4, 1) for each in (quantize_token_outlier, reference.quantize_token_outlier))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert found.indices.tolist() == [[7], [30]]
    assert bool((found.outliers.int().abs() > 31_500).all())


def test_long_tokens_have_long_indices():
    torch.manual_seed(0)
    x = torch.randn(3, 1025)
    for bits in (4, 8):
        found, expected = (each(x, bits, 8) for each in (quantize_token_outlier, reference.quantize_token_outlier))
        assert found.indices.dtype == torch.int16
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("shape", [(0, 17), (3, 0)])
def test_nothing_gives_nothing(shape: tuple[int, int]):
    x = torch.zeros(shape)
    for bits in (4, 8):
        found, expected = (each(x, bits, 2) for each in (quantize_token_outlier, reference.quantize_token_outlier))
        assert [(each.shape, each.dtype) for each in found] == [(each.shape, each.dtype) for each in expected]


def test_operands_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="inliers of 6 bits: kernels have 4 and 8"):
        quantize_token_outlier(torch.zeros(3, 4), 6, 1)
