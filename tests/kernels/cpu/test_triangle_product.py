"""Triangle products in float32 are exact, however long the sums are."""

import pytest
import torch

from protquant.kernels.cpu.triangle_product import float_triangle_product


def space(name: str, dtype: torch.dtype, elements: int) -> torch.Tensor:
    return torch.full((elements,), 99, dtype=dtype)


@pytest.mark.parametrize(
    ("length", "zeros", "dtype"),
    [
        (1024, (0, 0), torch.float32),
        (1025, (0, 0), torch.int32),
        (258, (-128, -128), torch.float32),
        (259, (-128, -128), torch.int32),
        (300, (-128, 127), torch.int32),
    ],
)
def test_the_largest_sums_are_exact(length: int, zeros: tuple[int, int], dtype: torch.dtype):
    """The last product is 1 or the like, which float32 cannot add to 2^24."""
    left, right = (torch.full((2, 3, length), -128 if zero >= 0 else 127, dtype=torch.int8) for zero in zeros)
    left[:, :, -1], right[:, :, -1] = zeros[0] + (1 if zeros[0] < 127 else -1), zeros[1] + (1 if zeros[1] < 127 else -1)
    wanted = (left.long() - zeros[0]) @ (right.long() - zeros[1]).mT
    found = float_triangle_product(left, right.mT, zeros, space)
    assert found.dtype == dtype
    assert torch.equal(found.long(), wanted)


@pytest.mark.parametrize("turned", [False, True])
def test_codes_of_any_layout_and_more_channels_than_are_worked_on_at_a_time(
    turned: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("protquant.kernels.cpu.triangle_product._OPERAND_BYTES", 4 * 40 * (7 + 33) * 2)  # two channels
    torch.manual_seed(0)
    left = torch.randint(-128, 128, (5, 40, 7) if turned else (5, 7, 40), dtype=torch.int8)
    right = torch.randint(-128, 128, (5, 40, 33) if turned else (5, 33, 40), dtype=torch.int8)
    a, b = (left.mT, right) if turned else (left, right.mT)
    wanted = (a.long() - 5) @ (b.long() + 9)
    assert torch.equal(float_triangle_product(a, b, (5, -9), space).long(), wanted)
