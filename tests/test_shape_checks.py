"""The suite sees wrong shapes: a check that is never made looks like one that passes."""

import pytest
import torch
from jaxtyping import TypeCheckError

from protquant.kernels.packing import unpack_bits
from protquant.models.esm2 import ESM2Output


def test_a_shape_that_does_not_go_with_the_others_is_an_error_in_tests():
    with pytest.raises(TypeCheckError, match="attentions"):
        ESM2Output(torch.zeros(1, 5, 8), attentions=torch.zeros(1, 2, 4, 5, 6))


def test_a_function_that_refuses_its_input_raises_its_own_error():
    with pytest.raises(ValueError, match="bits 9 is not in 1 to 8"):
        unpack_bits(torch.zeros(3), 9, 1)
