"""What is told of a model by its name is what it is once it is loaded."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from protquant.checkpoints import load
from protquant.models import ESM2Config, ESMFold, ESMFoldConfig, TrunkConfig
from protquant.preparing import quantize
from protquant.quant import load_recipe
from protquant.running.execution import Execution
from protquant.running.memory import Setup, folding_skeleton, memory_budget, memory_terms
from protquant.running.memory.weights import weight_bytes

CPU = torch.device("cpu")
SEQUENCES = ["MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"]


@pytest.mark.parametrize(
    ("name", "execution"),
    [
        ("fp32", None),
        ("w8a8-int8", "integer"),
        ("w8a8-int8-pair8", "integer"),
        ("w8a8-int8-pair16", "integer"),
        ("w4a8-int4", "integer"),
        ("w8a8-token", "integer"),
        ("w8a8-uniform", "simulate"),
        ("w8a8-pwlq", "simulate"),
        ("w8a8-fp8", "simulate"),
    ],
)
def test_setups_before_and_after_loading_plan_alike(esmfold_checkpoint: Path, name: str, execution: str | None):
    recipe = load_recipe(name)
    running = Execution(recipe, execution, "auto", CPU)
    before = memory_budget(
        folding_skeleton(str(esmfold_checkpoint)), recipe, running, device=CPU, dtype=torch.float32, max_memory=None
    ).setup
    model = load(esmfold_checkpoint)
    assert isinstance(model, ESMFold)
    if not recipe.is_float:
        model, _ = quantize(model, recipe, SEQUENCES, execution="simulate", cache=False, inplace=True)
        model = running.convert(model)
    after = Setup.of(model)
    assert before.execution == after.execution
    assert before.pair_bytes == after.pair_bytes
    assert before.simulates_blocks == after.simulates_blocks
    for length in (16, 200):
        planned = max(term.bytes for term in memory_terms(before, length))
        assert planned == pytest.approx(max(term.bytes for term in memory_terms(after, length)), rel=0.03)


WIDE = ESMFoldConfig(lm=ESM2Config(num_layers=1, dim=640, num_heads=10, ffn_dim=2560), trunk=TrunkConfig(num_blocks=1))


@pytest.mark.parametrize("name", ["w8a8-int8", "w4a8-int4", "w8a8-token", "w4a8-awq"])
def test_weights_on_integers_are_as_large_as_told(name: str):
    recipe, model = replace(load_recipe(name), steps=[]), ESMFold(WIDE).eval()
    told = weight_bytes(model, recipe, "integer")
    running = Execution(recipe, "integer", "auto", CPU)
    quantized, _ = quantize(model, recipe, SEQUENCES, execution="simulate", cache=False, inplace=True)
    converted = running.convert(quantized)
    assert running.support is not None
    # What is no weight of a linear layer on integers stays in float.
    floats = sum(parameter.numel() * parameter.element_size() for parameter in converted.parameters())
    assert told == pytest.approx(running.support.weight_bytes + floats, rel=0.05)
