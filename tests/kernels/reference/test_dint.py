import torch

from protquant.kernels.reference import decode_dint, dint_levels, encode_dint

ONE, ZERO = torch.tensor(1.0), torch.tensor(0)


def test_two_codes_are_left_for_the_special_levels():
    assert [dint_levels(bits) for bits in (3, 4)] == [6, 14]


def test_codes_of_three_bits():
    zero_point = torch.tensor(2)
    x = torch.tensor([-9.0, -2.0, -0.8, -0.7, -0.3, -0.2, 0.2, 0.3, 0.7, 0.8, 3.0, 9.0])
    codes = encode_dint(x, ONE, zero_point, 3)
    assert codes.tolist() == [0, 0, 1, 6, 6, 2, 2, 7, 7, 3, 5, 5]
    assert decode_dint(codes, ONE, zero_point, 3).tolist() == [-2, -2, -1, -0.5, -0.5, 0, 0, 0.5, 0.5, 1, 3, 3]


def test_a_value_midway_goes_to_the_special_level_from_below_and_to_the_full_step_from_above():
    assert decode_dint(
        encode_dint(torch.tensor([0.25, 0.75]), ONE, torch.tensor(2), 4), ONE, torch.tensor(2), 4
    ).tolist() == [
        0.5,
        1.0,
    ]


def test_integers_of_doubled_values_times_half_the_step_are_the_values():
    # What an integer unit does: the special codes become plus and minus one, the others even numbers.
    codes, zero_point, scale = torch.arange(16), torch.tensor(6), torch.tensor(0.3)
    doubled = torch.where(codes == 15, 1, torch.where(codes == 14, -1, 2 * (codes - zero_point)))
    assert torch.equal(doubled * (scale / 2), decode_dint(codes, scale, zero_point, 4))


def test_scales_broadcast_per_row():
    x = torch.tensor([[0.5, 2.0], [5.0, 20.0]])
    codes = encode_dint(x, torch.tensor([[1.0], [10.0]]), torch.tensor([[2], [3]]), 4)
    assert codes.tolist() == [[15, 4], [15, 5]]
