"""One byte per element says what a code and a region say, and is in the order of the values."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protquant.kernels.operands import ByteGrid
from protquant.kernels.reference import decode_tailed, encode_tailed
from protquant.kernels.reference.piecewise_bytes import (
    decode_tailed_bytes,
    encode_tailed_bytes,
    pieces_of,
    residual_add_encode,
)
from protquant.quant.formats import TailedGrid, TailedQuantizer

# What the residual of a folding trunk spans, and where most of it is.
RESIDUAL = TailedGrid.asymmetric(7, (-56.0, 906.0), (-3.0, 5.0))
SYMMETRIC = TailedGrid.symmetric(7, 300.0, 4.0, unsigned=False)
UNSIGNED = TailedGrid.symmetric(7, 300.0, 4.0, unsigned=True)
ONE_TAIL = TailedGrid.asymmetric(7, (-3.0, 906.0), (-3.0, 5.0))
NO_TAIL = TailedGrid.asymmetric(7, (-3.0, 5.0), (-3.0, 5.0))


@st.composite
def grids(draw: st.DrawFn) -> TailedGrid:
    ends = st.floats(0.01, 2000.0)
    fractions = st.floats(0.001, 1.0)
    if draw(st.booleans()):
        magnitude = draw(ends)
        return TailedGrid.symmetric(7, magnitude, magnitude * draw(fractions), draw(st.booleans()))
    low, high = -draw(ends), draw(ends)
    return TailedGrid.asymmetric(7, (low, high), (low * draw(fractions), high * draw(fractions)))


@settings(max_examples=150, deadline=None)
@given(grids(), st.lists(st.floats(-4000.0, 4000.0, width=32), min_size=1, max_size=20))
def test_decoded_bytes_are_decoded_codes_to_the_bit(grid: TailedGrid, values: list[float]):
    byte_grid = ByteGrid(*grid)
    middle = (torch.arange(grid.low, grid.high + 1) - grid.zero_point) * grid.scale
    ends = torch.tensor([*grid.ends, *grid.breakpoints])
    x = torch.cat((torch.tensor(values), middle, ends, ends.nextafter(ends + 1), ends.nextafter(ends - 1)))
    codes = encode_tailed_bytes(x, byte_grid)
    pieces = pieces_of(byte_grid, x.device)
    expected = decode_tailed(encode_tailed(x, *pieces), *pieces)
    assert torch.equal(decode_tailed_bytes(codes, byte_grid).view(torch.int32), expected.view(torch.int32))
    assert int(codes.max()) < byte_grid.levels <= 254
    # Larger values have larger bytes.
    assert bool((codes[x.argsort()].int().diff() >= 0).all())


@pytest.mark.parametrize(
    ("grid", "levels"), [(RESIDUAL, 254), (SYMMETRIC, 253), (UNSIGNED, 191), (ONE_TAIL, 191), (NO_TAIL, 128)]
)
def test_levels_lie_end_to_end(grid: TailedGrid, levels: int):
    byte_grid = ByteGrid(*grid)
    assert byte_grid.levels == levels
    every = torch.arange(levels).to(torch.uint8)
    values = decode_tailed_bytes(every, byte_grid)
    torch.testing.assert_close(values, TailedQuantizer(7, grid).levels().float())
    assert bool((values.diff() > 0).all())
    assert torch.equal(encode_tailed_bytes(values, byte_grid), every)
    assert values[byte_grid.left_codes] == pytest.approx(grid.breakpoints[0])
    assert (values[0].item(), values[-1].item()) == pytest.approx(grid.ends)


def test_decoded_bytes_are_what_the_simulation_makes():
    torch.manual_seed(0)
    x = torch.randn(500) * torch.logspace(-2, 3, 500)
    # The simulation adds up pieces, with one rounding less.
    simulated = RESIDUAL.simulate(x)
    torch.testing.assert_close(
        decode_tailed_bytes(encode_tailed_bytes(x, ByteGrid(*RESIDUAL)), ByteGrid(*RESIDUAL)), simulated
    )


def test_a_residual_takes_up_an_update():
    torch.manual_seed(0)
    grid, other = ByteGrid(*RESIDUAL), ByteGrid(*SYMMETRIC)
    x, update = 20 * torch.randn(7, 9), torch.randn(7, 9).bfloat16()
    codes = encode_tailed_bytes(x, grid)
    total = decode_tailed_bytes(codes, grid) + update.float()
    assert torch.equal(residual_add_encode(x, update, grid), encode_tailed_bytes(x + update.float(), grid))
    assert torch.equal(residual_add_encode(codes, update, other, residual_grid=grid), encode_tailed_bytes(total, other))
    assert residual_add_encode(codes, update, grid, out=codes) is codes
    assert torch.equal(codes, encode_tailed_bytes(total, grid))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (
            (1.0, 0, 0, 255, 1.0, 0.0, 127),
            "127 codes of a left tail, 256 of the middle .* 383 levels, more",
        ),
        ((0.0, 0, 0, 127, 1.0, 0.0, 63), "the first must be positive"),
        ((1.0, 0, 0, 127, -1.0, 0.0, 63), "the others positive or, for no tail, 0"),
        ((1.0, 0, 3, 2, 0.0, 0.0, 63), "codes 3 to 2, and 0 to 63 in tails, are none"),
        ((1.0, 2**22, 0, 127, 0.0, 0.0, 63), "steps or more away from 0"),
    ],
)
def test_grids_that_no_byte_holds_are_refused(numbers, message: str):
    with pytest.raises(ValueError, match=message):
        ByteGrid(*numbers)


def test_residuals_and_updates_that_do_not_fit_are_named():
    grid = ByteGrid(*RESIDUAL)
    codes, update = torch.zeros(3, 2, dtype=torch.uint8), torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"uint8\) or floats, not torch.int64"):
        residual_add_encode(codes.long(), update, grid)
    with pytest.raises(ValueError, match=r"shape \(3, 2\), not \(3,\)"):
        residual_add_encode(codes, update[:, 0], grid)
    with pytest.raises(ValueError, match="leave out residual_grid"):
        residual_add_encode(update, update, grid, residual_grid=grid)
    with pytest.raises(ValueError, match=r"out must be uint8 of shape \(3, 2\)"):
        residual_add_encode(codes, update, grid, out=codes.int())
