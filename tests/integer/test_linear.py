"""A linear layer on integers gives what its simulation gives; one without a kernel stays, and says why."""

import copy

import torch
from torch import nn

from protquant.integer import SupportRow
from protquant.integer.linear import IntegerLinear, linear_twin
from protquant.kernels.reference.backend import ReferenceBackend
from protquant.models.trunk import FoldingBlock


def test_a_twin_gives_what_the_simulation_gives(quantized_block: FoldingBlock):
    layer, x = quantized_block.pair_transition.up_proj, torch.randn(3, 5, 12)
    twin, row = linear_twin(layer, ReferenceBackend(), "here")
    assert isinstance(twin, IntegerLinear) and row == SupportRow("here", "integer", ReferenceBackend().kernel)
    torch.testing.assert_close(twin(x), layer(x), rtol=1e-4, atol=1e-4)
    assert twin(x[:0]).shape == (0, 5, 48)


def test_a_layer_without_a_kernel_is_itself_and_says_why(quantized_block: FoldingBlock):
    layer = copy.deepcopy(quantized_block.pair_transition.up_proj)
    layer.input_quantizer = None
    assert linear_twin(layer, ReferenceBackend(), "here") == (
        layer,
        SupportRow("here", "simulated", "here.input is in float"),
    )
    plain = nn.Linear(2, 3)
    assert linear_twin(plain, ReferenceBackend(), "here")[1].what == "here is in float"
