"""What leads from the pair to the single and back gives on integers what its simulation gives."""

from collections.abc import Callable

from protquant.integer.simulated import SimulatedPairToBias, SimulatedSingleAttention, SimulatedSingleToPair
from protquant.integer.single import IntegerPairToBias, IntegerSingleAttention, IntegerSingleToPair
from protquant.models.trunk import FoldingBlock


def test_the_bias_is_that_of_its_simulation(updates: Callable, same_update: Callable):
    states = updates("pair_to_bias", IntegerPairToBias, SimulatedPairToBias)
    same_update(*(state.bias for state in states))


def test_the_attention_of_the_single_is_that_of_its_simulation_and_drops_the_bias(
    updates: Callable, same_update: Callable, quantized_block: FoldingBlock
):
    norm = quantized_block.single_norm
    integer, simulated, before = updates("single_attn", IntegerSingleAttention, SimulatedSingleAttention, norm=norm)
    same_update(*(state.single[before.full_mask] for state in (integer, simulated, before)))
    assert integer.bias is None and simulated.bias is None


def test_the_way_to_the_pair_is_that_of_its_simulation(updates: Callable, same_update: Callable):
    states = updates("single_to_pair", IntegerSingleToPair, SimulatedSingleToPair)
    same_update(*(state.pair.floats() for state in states))
