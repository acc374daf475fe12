"""Transitions on integers update single and pair as their simulation does."""

from collections.abc import Callable

import torch

from protquant.integer.simulated import SimulatedPairTransition, SimulatedSingleTransition
from protquant.integer.transition import IntegerPairTransition, IntegerSingleTransition


def test_the_single_transition_is_that_of_its_simulation(updates: Callable, same_update: Callable):
    states = updates("single_transition", IntegerSingleTransition, SimulatedSingleTransition)
    same_update(*(state.single for state in states))
    assert torch.equal(states[0].pair.floats(), states[2].pair.floats())


def test_the_pair_transition_is_that_of_its_simulation(updates: Callable, same_update: Callable):
    states = updates("pair_transition", IntegerPairTransition, SimulatedPairTransition)
    same_update(*(state.pair.floats() for state in states))
    assert torch.equal(states[0].single, states[2].single)
