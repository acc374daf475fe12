"""Triangle updates on integers change the pair as their simulation does, and nothing else."""

from collections.abc import Callable

import pytest
import torch

from protquant.integer.simulated import SimulatedTriangleAttention, SimulatedTriangleMultiplication
from protquant.integer.triangle import IntegerTriangleAttention, IntegerTriangleMultiplication


@pytest.mark.parametrize("name", ["tri_mul_out", "tri_mul_in", "tri_attn_start", "tri_attn_end"])
def test_a_triangle_update_is_that_of_its_simulation(updates: Callable, same_update: Callable, name: str):
    forms = {
        "mul": (IntegerTriangleMultiplication, SimulatedTriangleMultiplication),
        "attn": (IntegerTriangleAttention, SimulatedTriangleAttention),
    }
    integer, simulated, before = updates(name, *forms[name.split("_")[1]])
    valid = before.full_pair_mask
    same_update(*(state.pair.floats()[valid] for state in (integer, simulated, before)))
    assert torch.equal(integer.single, before.single)
