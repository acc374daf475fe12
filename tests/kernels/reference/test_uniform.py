import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protquant.kernels.reference import code_dtype, decode_uniform, encode_uniform

VALUES = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=50).map(torch.tensor)
SCALES = st.floats(2**-10, 2**10, width=32).map(torch.tensor)


@given(VALUES, SCALES, st.integers(2, 8), st.integers(0, 3))
def test_values_inside_the_grid_move_half_a_step_at_most(x, scale, bits, zero):
    low, high, zero_point = 0, 2**bits - 1, torch.tensor(zero)
    x = x.clamp((low - zero) * scale.item(), (high - zero) * scale.item())
    codes = encode_uniform(x, scale, zero_point, low, high)
    assert ((decode_uniform(codes, scale, zero_point) - x).abs() <= scale * 0.5001).all()


@given(VALUES, SCALES, st.integers(2, 16))
def test_codes_fit_their_width(x, scale, bits):
    low, high = 1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1
    codes = encode_uniform(x, scale, None, low, high)
    assert low <= codes.min() and codes.max() <= high
    assert codes.dtype == code_dtype(low, high)


@given(VALUES, SCALES)
def test_codes_of_decoded_codes_are_the_same_codes(x, scale):
    codes = encode_uniform(x, scale, None, -127, 127)
    assert torch.equal(encode_uniform(decode_uniform(codes, scale, None), scale, None, -127, 127), codes)


@given(VALUES, SCALES)
def test_a_larger_value_has_no_smaller_code(x, scale):
    codes = encode_uniform(x.sort().values, scale, None, -127, 127).int()
    assert (codes.diff() >= 0).all()


def test_scales_broadcast_per_row():
    x = torch.tensor([[1.0, 2.0], [10.0, 20.0]])
    codes = encode_uniform(x, torch.tensor([[1.0], [10.0]]), None, -127, 127)
    assert codes.tolist() == [[1, 2], [1, 2]]


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(-128, 127, torch.int8), (0, 255, torch.uint8), (-129, 0, torch.int16), (0, 65_535, torch.int32)],
)
def test_codes_take_the_smallest_dtype_that_holds_them(low, high, dtype):
    assert code_dtype(low, high) == dtype


def test_codes_of_more_than_32_bits_are_refused():
    with pytest.raises(ValueError, match="32 bits"):
        code_dtype(0, 2**31)
