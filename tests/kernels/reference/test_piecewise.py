import torch

from protquant.kernels.reference import (
    Tails,
    decode_tailed,
    decode_two_scale,
    encode_tailed,
    encode_two_scale,
)

STEP, ZERO = torch.tensor(1.0), torch.tensor(1, dtype=torch.int32)
# 3-bit codes: a middle of steps of 1 from -1 to 6, a left tail of steps of 10, a right tail of steps of 100.
TAILS = Tails(torch.tensor(10.0), torch.tensor(100.0), 3)


def test_each_piece_counts_from_where_the_middle_ends():
    x = torch.tensor([-31.0, -11.0, -1.0, 0.0, 2.4, 6.0, 106.0, 306.0])
    encoded = encode_tailed(x, STEP, ZERO, 0, 7, TAILS)
    assert encoded.codes.tolist() == [3, 1, 0, 1, 3, 7, 1, 3]
    assert encoded.regions.tolist() == [1, 1, 0, 0, 0, 0, 2, 2]
    decoded = decode_tailed(encoded, STEP, ZERO, 0, 7, TAILS)
    assert decoded.tolist() == [-31.0, -11.0, -1.0, 0.0, 2.0, 6.0, 106.0, 306.0]


def test_what_lies_beyond_a_tail_goes_to_its_end():
    encoded = encode_tailed(torch.tensor([-1e9, 1e9]), STEP, ZERO, 0, 7, TAILS)
    assert decode_tailed(encoded, STEP, ZERO, 0, 7, TAILS).tolist() == [-31.0, 306.0]


def test_without_a_tail_the_middle_saturates():
    tails = Tails(None, TAILS.right_scale, 3)
    encoded = encode_tailed(torch.tensor([-50.0, 106.0]), STEP, ZERO, 0, 7, tails)
    assert encoded.regions.tolist() == [0, 2]
    assert decode_tailed(encoded, STEP, ZERO, 0, 7, tails).tolist() == [-1.0, 106.0]


def test_two_scales_share_a_code_and_differ_by_region():
    inner, outer, breakpoint = torch.tensor(1.0), torch.tensor(10.0), torch.tensor(4.0)
    encoded = encode_two_scale(torch.tensor([-40.0, -3.9, 1.0, 3.0, 4.0, 10.0]), inner, outer, breakpoint, -4, 3)
    assert encoded.codes.tolist() == [-4, -4, 1, 3, 0, 1]
    assert encoded.regions.tolist() == [1, 0, 0, 0, 1, 1]
    assert decode_two_scale(encoded, inner, outer).tolist() == [-40.0, -4.0, 1.0, 3.0, 0.0, 10.0]
