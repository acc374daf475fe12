"""Plans are held to what torch's own profiler saw: bytes of all tensors that were alive."""

from collections.abc import Callable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from protquant.models import ESM2Config, ESMFold, ESMFoldConfig, StructureModuleConfig, TrunkConfig
from protquant.predicting.folding import fold_batch
from protquant.preparing import quantize
from protquant.quant.decoded_weights import decoded_weights
from protquant.running.memory import Setup, memory_terms
from protquant.running.random_weights import randomize

CONFIG = ESMFoldConfig(
    lm=ESM2Config(num_layers=3, dim=64, num_heads=4, ffn_dim=256),
    trunk=TrunkConfig(
        num_blocks=2,
        single_dim=64,
        pair_dim=32,
        single_head_dim=16,
        pair_head_dim=8,
        structure_module=StructureModuleConfig(single_dim=64, pair_dim=32, num_heads=3),
    ),
)
SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ" * 8


@pytest.fixture(scope="module")
def float_model() -> ESMFold:
    model = ESMFold(CONFIG).eval()
    randomize(model)
    return model


def peak_of(run: Callable[[], object]) -> int:
    """Most bytes of tensors that lived at one time, beside those from before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        run()
    assert profiler.profiler is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


def planned_by_traced(model: ESMFold, length: int, batch: int = 1, chunk_size: int | None = None) -> float:
    sequences, names = [SEQUENCE[:length]] * batch, ["a"] * batch
    traced = peak_of(lambda: fold_batch(model, sequences, names, num_recycles=1, chunk_size=chunk_size))
    return max(term.bytes for term in memory_terms(Setup.of(model), length, batch, chunk_size)) / traced


@pytest.mark.parametrize(("length", "batch", "chunk_size"), [(128, 1, None), (96, 2, None), (128, 1, 8), (40, 1, None)])
def test_tensors_of_a_float_model_are_planned(float_model: ESMFold, length, batch, chunk_size):
    assert 0.93 < planned_by_traced(float_model, length, batch, chunk_size) < 1.1


@pytest.mark.parametrize(("length", "batch"), [(128, 1), (96, 2)])
def test_tensors_of_a_model_on_integers_are_planned(float_model: ESMFold, length: int, batch: int):
    model, _ = quantize(float_model, "w8a8-int8", [SEQUENCE[:32]], execution="integer", cache=False)
    assert 0.93 < planned_by_traced(model, length, batch) < 1.15


def test_tensors_of_a_simulation_are_planned(float_model: ESMFold):
    decoded_weights.clear()
    model, _ = quantize(float_model, "w8a8-uniform", [SEQUENCE[:32]], cache=False)
    assert 0.93 < planned_by_traced(model, 96) < 1.25


def test_pairs_in_bytes_are_counted_as_such(float_model: ESMFold):
    plans = {}
    for recipe in ("w8a8-int8", "w8a8-int8-pair8"):
        model, _ = quantize(float_model, recipe, [SEQUENCE[:32]], execution="integer", cache=False)
        setup = Setup.of(model)
        plans[setup.pair_bytes] = planned_by_traced(model, 96)
    assert set(plans) == {4, 1}
    assert all(0.88 < ratio < 1.3 for ratio in plans.values()), plans


def test_steps_have_names(float_model: ESMFold):
    with torch.device("meta"):
        empty = ESMFold(CONFIG)
    assert {term.step for term in memory_terms(Setup.of(empty), 64)} >= {"heads", "triangle attention", "recycling"}
