"""The kernel gives the codes of the reference, on shapes that fill no tile."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.operands import Codes8, Grid, IntegerWeight
from protquant.kernels.reference.gated_projection import gated_projection as reference
from protquant.kernels.triton.gated_projection import gated_projection
from protquant.kernels.triton.operands import KernelWeight

# Rows, output channels, input channels.
SIZES = [(1, 3, 17), (3, 1, 200), (17, 127, 129), (127, 200, 1), (129, 17, 3), (200, 129, 127)]
GRID = Grid(0.02, -7, -127, 100)


def codes(*shape: int) -> Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8)


def projection(n: int, k: int) -> IntegerWeight:
    return IntegerWeight(codes(n, k), 0.01 * torch.rand(n, 1) + 1e-3, None, torch.randn(n), n)


def rows(m: int, k: int, count: int = 1) -> Codes8:
    zero = torch.randint(-20, 20, (count,)).int()
    return Codes8(codes(m, 2 * k)[:, :k], 0.02 * torch.rand(count) / k**0.5 + 1e-3, zero)


def assert_same_codes(found: Tensor, expected: Tensor):
    """One in a thousand values lies so near to the middle of two codes that sigmoids of two makers part them."""
    assert found.dtype == torch.int8 and found.shape == expected.shape
    apart = (found.int() - expected.int()).abs()
    assert apart.max() <= 1
    assert apart.sum() <= 1 + found.numel() // 1000


@pytest.mark.parametrize(("m", "n", "k"), SIZES)
@pytest.mark.parametrize("per_token", [False, True])
def test_codes_are_those_of_the_reference(m: int, n: int, k: int, per_token: bool):
    torch.manual_seed(m * k)
    x, weights = rows(m, k, m if per_token else 1), (projection(n, k), projection(n, k))
    found = gated_projection(x, *map(KernelWeight.of, weights), Grid(0.02, 0, -128, 127))
    assert_same_codes(found, reference(x, *weights, Grid(0.02, 0, -128, 127)))


@pytest.mark.parametrize("biased", [False, True])
def test_masked_rows_are_zero(biased: bool):
    torch.manual_seed(0)
    m, n, k = 129, 17, 127
    x, weights = rows(m, k), [projection(n, k) if biased else replace(projection(n, k), bias=None) for _ in range(2)]
    x = replace(x, scale=torch.tensor([0.003]), zero=torch.zeros(1, dtype=torch.int32))
    mask = torch.rand(m) > 0.3
    found = gated_projection(x, *map(KernelWeight.of, weights), GRID, mask, has_zero=False)
    assert_same_codes(found, reference(x, *weights, GRID, mask))
    assert (found[:, ~mask] == -7).all()
    assert (found[:, mask] != -7).float().mean() > 0.9
    assert found.min() == -127 and found.max() == 100  # both ends are met


def test_lines_of_rows_may_lie_apart():
    torch.manual_seed(0)
    n, k, lines, line = 17, 24, 5, 11
    given = rows(lines * line, k), *(KernelWeight.of(projection(n, k)) for _ in range(2)), GRID
    room = torch.zeros(n, lines + 3, 16, dtype=torch.int8)
    found = gated_projection(*given, out=room[:, 2 : 2 + lines, :line])
    assert torch.equal(found.flatten(1), gated_projection(*given))
    assert not room[:, :2].any() and not room[:, 2 + lines :].any() and not room[:, :, line:].any()
    with pytest.raises(ValueError, match=r"out must be int8 of 17 channels of 55 rows, not \(17, 5, 12\)"):
        gated_projection(*given, out=room[:, :lines, :12])


def test_halves_go_to_the_even_code():
    x = Codes8(torch.arange(-3, 3, dtype=torch.int8)[:, None], torch.ones(1), torch.zeros(1, dtype=torch.int32))
    proj, gate = (  # an open gate halves them
        KernelWeight.of(IntegerWeight(torch.full((1, 1), code, dtype=torch.int8), torch.ones(1, 1), None, None, 1))
        for code in (1, 0)
    )
    assert gated_projection(x, proj, gate, Grid(1.0, 0, -128, 127)).flatten().tolist() == [-2, -1, 0, 0, 0, 1]


def test_no_rows_give_no_rows():
    proj = KernelWeight.of(projection(3, 17))
    assert gated_projection(rows(0, 17), proj, proj, GRID).shape == (3, 0)


def test_operands_that_do_not_fit_are_named():
    x, three, four = rows(5, 17), *(KernelWeight.of(projection(n, 17)) for n in (3, 4))
    with pytest.raises(ValueError, match="symmetric weights of eight bits with as many outputs"):
        gated_projection(x, three, four, GRID)
    with pytest.raises(ValueError, match=r"the mask of 5 rows is \(5,\) of torch.float32, not bool"):
        gated_projection(x, three, three, GRID, torch.ones(5))
    with pytest.raises(ValueError, match="x has 16 channels, and the weight reads 17"):
        gated_projection(rows(5, 16), three, three, GRID)
