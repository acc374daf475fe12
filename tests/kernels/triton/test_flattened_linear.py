"""The kernel on split channels gives what the reference gives, whose pieces are in memory."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.epilogue import Epilogue
from protquant.kernels.operands import Grid, IntegerWeight
from protquant.kernels.packing import pack4
from protquant.kernels.reference.linear_flattened import Pieces
from protquant.kernels.reference.linear_flattened import linear_flattened as reference
from protquant.kernels.triton.flattened_linear import linear_flattened
from protquant.kernels.triton.operands import KernelWeight
from protquant.quant.channel_splitting import SaturatingSplit, pieces_at

THRESHOLD = 3.0
GRID = Grid(THRESHOLD / 127, 0, -127, 127)


def pieces_of(x: Tensor) -> Pieces:
    # Less than the largest: the last piece takes the rest, which saturates.
    split = SaturatingSplit.of(pieces_at(0.9 * x.float().abs().amax(0), THRESHOLD), THRESHOLD)
    return Pieces(split.channel, split.low, split.high)


def weight(n: int, pieces: Pieces, kind="int8") -> IntegerWeight:
    scale, d = torch.rand(n, 1), len(pieces.channel)
    if kind == "int8":
        return IntegerWeight(torch.randint(-128, 128, (n, d), dtype=torch.int8), scale, None, torch.randn(n), n)
    zero = torch.randint(0, 16, (n, 1), dtype=torch.uint8)
    return IntegerWeight(pack4(torch.randint(0, 16, (n, d))), scale, zero, None, n, kind)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("m", "n", "c"), [(1, 1, 1), (17, 3, 129), (129, 17, 17), (3, 127, 200), (200, 33, 3)])
def test_pieces_are_quantized_and_summed_exactly(m: int, n: int, c: int, dtype: torch.dtype):
    torch.manual_seed(m * c)
    x = (torch.randn(c, m) * torch.rand(c, 1) * 8).T.to(dtype)
    pieces = pieces_of(x)
    # Of the second, nothing beyond the last piece counts, whatever its code.
    for grid, kind in ((GRID, "int8"), (Grid(THRESHOLD / 127, 0, 1, 7), "int4")):
        of = weight(n, pieces, kind)
        assert torch.equal(linear_flattened(x, pieces, grid, KernelWeight.of(of)), reference(x, pieces, grid, of))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_what_follows_is_that_of_the_reference(dtype: torch.dtype):
    torch.manual_seed(0)
    m, n, c = 33, 17, 40
    x = 4 * torch.randn(m, c)
    pieces = pieces_of(x)
    of = weight(n, pieces)
    of = replace(of, scale=0.01 * of.scale)
    after = Epilogue("relu", torch.rand(m, n), torch.randn(m, n))
    after = replace(after, grid=Grid(0.5, -3, -128, 127)) if dtype == torch.int8 else replace(after, dtype=dtype)
    y = linear_flattened(x, pieces, GRID, KernelWeight.of(of), after)
    assert y.dtype == dtype
    assert len(y.unique()) > 20
    # Triton's interpreter cuts bfloat16 off where it should round.
    rtol = torch.finfo(dtype).eps if dtype == torch.bfloat16 else 0.0
    torch.testing.assert_close(y, reference(x, pieces, GRID, of, after), rtol=rtol, atol=0.0)


def test_no_rows_give_no_rows():
    pieces = pieces_of(torch.ones(1, 2))
    of = KernelWeight.of(weight(5, pieces))
    assert linear_flattened(torch.zeros(0, 2), pieces, GRID, of).shape == (0, 5)


def test_operands_that_do_not_fit_are_named():
    x = torch.zeros(4, 2)
    pieces = pieces_of(x)
    of = KernelWeight.of(weight(5, pieces))
    with pytest.raises(ValueError, match="x has 1 channels, and the weight reads 2"):
        linear_flattened(x, Pieces(*(part[:1] for part in pieces)), GRID, of)
    with pytest.raises(ValueError, match="neither a zero point nor groups"):
        linear_flattened(x, pieces, Grid(1.0, 3, -127, 127), of)
