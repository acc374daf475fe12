import torch

from protquant.kernels.reference import decode_token_outlier, encode_token_outlier, token_scale


def test_what_is_left_of_a_token_gives_the_step_and_the_rest_goes_to_16_bits():
    x = torch.tensor([[1.0, -70.0, 7.0, 3.4, 100.0]])
    scales = token_scale(x, bits=4, outliers=2)
    assert scales.tolist() == [[1.0]]
    encoded = encode_token_outlier(x, scales, bits=4, outliers=2)
    assert encoded.codes.tolist() == [[1, 7, 3]]
    assert encoded.indices.tolist() == [[1, 4]]
    assert encoded.outliers.tolist() == [[-70, 100]]
    assert [each.dtype for each in encoded] == [torch.int8, torch.bfloat16, torch.int16, torch.int8]
    assert decode_token_outlier(encoded).tolist() == [[1.0, -70.0, 7.0, 3.0, 100.0]]


def test_an_outlier_is_never_too_large_for_16_bits():
    x = torch.tensor([[1e-4, 1e-4, 1e30]])
    encoded = encode_token_outlier(x, token_scale(x, 4, 1), 4, 1)
    assert 31_500 < encoded.outliers.item() < 2**15 - 1  # not cut off at the largest code


def test_zeros_have_a_step_of_one():
    assert token_scale(torch.zeros(2, 3), 4, 1).tolist() == [[1.0], [1.0]]
    assert token_scale(torch.zeros(2, 0), 4, 1).tolist() == [[1.0], [1.0]]
    assert token_scale(torch.zeros(0, 3), 4, 1).shape == (0, 1)


def test_scales_of_another_tensor_cut_what_does_not_fit():
    one = torch.ones(1, 1, dtype=torch.bfloat16)
    encoded = encode_token_outlier(torch.tensor([[9.0, 1e6]]), one, 4, 1)
    assert decode_token_outlier(encoded).tolist() == [[7.0, 32_767.0]]
