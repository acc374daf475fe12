import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from protquant.checkpoints import load, save_quantized
from protquant.errors import ProtquantError
from protquant.models import ESM2Config, ESMFold, ESMFoldConfig, TrunkConfig, triangle
from protquant.predicting import fold
from protquant.preparing import quantize
from protquant.quant.decoded_weights import decoded_weights
from protquant.running.memory import MemoryBudget, budget, float_blocks, is_out_of_memory, plan_memory
from protquant.running.memory.weights import bytes_to_come

CHUNKS = (None, 256, 64, 8, 1)


def room(model: ESMFold, available: int = 2**62) -> MemoryBudget:
    budget = MemoryBudget.of(model)
    return replace(budget, allowed=budget.resident + available)


def activations(model: ESMFold, length: int, **settings) -> int:
    return room(model).plan(length, **settings).activations


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_more_residues_never_need_less(esmfold: ESMFold, chunk_size: int | None):
    budget = room(esmfold)  # once: it gives freed memory back, which takes longer than a plan
    needed = [budget.plan(length, chunk_size=chunk_size).activations for length in range(1, 1000, 23)]
    assert needed == sorted(needed)


@pytest.mark.parametrize("length", [16, 200, 700])
def test_smaller_chunks_never_need_more(esmfold: ESMFold, length: int):
    needed = [activations(esmfold, length, chunk_size=chunk_size) for chunk_size in CHUNKS]
    assert needed == sorted(needed, reverse=True)
    assert needed[-1] < needed[0] or length == 16


def test_the_largest_chunks_that_fit_are_chosen(esmfold: ESMFold):
    assert room(esmfold).plan(600).chunk_size is None
    in_64 = activations(esmfold, 600, chunk_size=64)
    plan = room(esmfold, in_64).plan(600)
    assert (plan.chunk_size, plan.activations) == (64, in_64)
    assert room(esmfold, in_64 - 1).plan(600).chunk_size == 32
    assert "1 x 600 residues" in str(plan)
    assert "chunks of 64" in str(plan)


def test_what_cannot_fit_is_refused_with_the_length_that_would(esmfold: ESMFold):
    available = activations(esmfold, 500, chunk_size=1)
    with pytest.raises(ProtquantError, match="2 x 900 residues would need") as refusal:
        room(esmfold, available).plan(900, batch=2)
    longest = int(re.search("a single sequence of ([0-9]+) residues", str(refusal.value))[1])
    assert room(esmfold, available).plan(longest).activations == available
    with pytest.raises(ProtquantError, match="would need"):
        room(esmfold, available).plan(longest + 1)


def test_chunks_asked_for_are_blamed_where_they_are_too_large(esmfold: ESMFold):
    available = activations(esmfold, 500, chunk_size=16)
    with pytest.raises(ProtquantError, match="at chunk size 256; leave --chunk-size out"):
        room(esmfold, available).plan(500, chunk_size=256)


def test_attention_too_large_for_32_bit_offsets_is_planned_in_chunks_and_computed_in_them(esmfold, monkeypatch):
    sequence = "MKTAYIAKQRQISFVKSHFSRQLEERLG"
    whole = fold(esmfold, sequence)
    heads, limit = 2, 2 * 28 * 28 * 5  # five rows of the logits
    for module in (budget, float_blocks, triangle):
        monkeypatch.setattr(module, "MAX_ATTENTION_ELEMENTS", limit)
    assert room(esmfold).plan(27).chunk_size is not None
    sizes = []
    attentions = [m for m in esmfold.modules() if isinstance(m, triangle.TriangleAttention)]
    hooks = [a.logits.register_forward_pre_hook(lambda _, x: sizes.append(x[0].numel())) for a in attentions]
    try:
        chunked = fold(esmfold, sequence)
    finally:
        for hook in hooks:
            hook.remove()
    assert {a.num_heads for a in attentions} == {heads}
    assert max(sizes) == limit
    assert abs(chunked.atoms.coord - whole.atoms.coord).max() < 1e-3


def test_what_torch_says_when_the_processor_has_no_memory_left_is_recognized():
    with pytest.raises(RuntimeError) as refusal:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(refusal.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("expected scalar type Float but found Half"))


def test_a_limit_of_the_whole_process_counts_what_it_takes_already(esmfold: ESMFold):
    resident = MemoryBudget.of(esmfold).resident
    needed = activations(esmfold, 300, chunk_size=8)
    plan = plan_memory(esmfold, 300, max_memory=resident + needed + 2**24)
    assert plan.chunk_size is not None
    assert plan.chunk_size >= 8
    with pytest.raises(ProtquantError, match="no sequence would fit"):
        plan_memory(esmfold, 300, max_memory=resident // 2)


def test_a_model_that_does_not_fit_is_refused_by_its_name(esmfold: ESMFold):
    room(esmfold, 0).check_weights("a model")
    with pytest.raises(ProtquantError, match=r"a model takes .* `protquant plan` shows which recipes fit"):
        room(esmfold, -1).check_weights("a model")


def test_a_model_that_takes_more_while_it_is_loaded_is_refused_too(esmfold: ESMFold):
    budget = replace(room(esmfold), loading=2**60)
    with pytest.raises(ProtquantError, match=r"takes .* while it is loaded"):
        budget.check_weights("a model")


def test_a_limit_for_a_gpu_says_nothing_of_main_memory_while_a_model_is_loaded(esmfold: ESMFold):
    budget = replace(room(esmfold), loading=2**21, limit=2**20)
    with pytest.raises(ProtquantError, match="while it is loaded"):
        budget.check_weights("a model")
    replace(budget, device=torch.device("cuda")).check_weights("a model")


def test_what_the_first_protein_left_behind_is_not_counted_again(esmfold: ESMFold):
    before = MemoryBudget.of(esmfold)
    fold(esmfold, "MKTAYIAKQRQISFVKSHFSRQLEERLG" * 4)
    assert before.now().plan(50).total == before.plan(50).total


def test_simulated_weights_that_were_not_decoded_yet_are_counted(tmp_path: Path):
    model = ESMFold(ESMFoldConfig(lm=ESM2Config(num_layers=1, dim=640, num_heads=10), trunk=TrunkConfig(num_blocks=1)))
    quantized, report = quantize(model.eval(), "w8a8-token", [], execution="simulate", cache=False, inplace=True)
    save_quantized(quantized, report, tmp_path / "quantized")
    decoded_weights.clear()
    loaded = load(tmp_path / "quantized")
    assert isinstance(loaded, ESMFold)
    to_come = bytes_to_come(loaded)
    assert to_come > 5 * 10_000_000
    fold(loaded, "MKTAYIAKQR")
    assert decoded_weights.nbytes > 4 * 10_000_000
    assert bytes_to_come(loaded) < to_come / 20
