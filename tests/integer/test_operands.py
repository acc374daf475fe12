"""Weights of layers with one input are stacked and reordered without a change of their values."""

import pytest
import torch

from protquant.integer.operands import NoIntegerKernelError, reordered, shared_input, stacked
from protquant.models.trunk import FoldingBlock

NAMES = ("q_proj", "k_proj", "v_proj")


def test_stacked_and_reordered_weights_decode_to_the_rows_of_the_simulation(quantized_block: FoldingBlock):
    module = quantized_block.tri_attn_start
    _, weights = shared_input(module, NAMES, "here")
    layers = [module.get_submodule(name) for name in NAMES]
    whole = stacked([weights[name] for name in NAMES])
    wanted = torch.cat([layer.float_weight() for layer in layers]).detach()
    torch.testing.assert_close(whole.decode(), wanted)
    order = list(reversed(range(0, len(wanted), 3)))
    torch.testing.assert_close(reordered(whole, order).decode(), wanted[order])


def test_layers_with_different_inputs_are_named(quantized_block: FoldingBlock):
    with pytest.raises(NoIntegerKernelError, match=r"here\.up_proj and here\.down_proj read different codes"):
        shared_input(quantized_block.pair_transition, ("up_proj", "down_proj"), "here")
