"""What a plan says of records and recipes, and that nothing is loaded for it."""

from pathlib import Path

import pytest
import torch

from protquant.errors import ProtquantError
from protquant.models import ESMFold
from protquant.predicting import plan_folding
from protquant.preparing import time_estimate
from protquant.quant import load_recipe
from protquant.running.execution import Execution

GIB = 2**30
CPU = torch.device("cpu")
FASTA = Path(__file__).parents[2] / "protquant" / "demo" / "example.fasta"


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "in.fasta"
    path.write_text(f">long\n{'MKTAYIAKQR' * 300}\n>two\nGAVLIDE:GAVLIDE\n>short\nGAVLIDE\n>bad\n123\n")
    return path


def test_records_are_listed_in_the_order_of_folding_with_their_peaks(fasta: Path, esmfold_checkpoint: Path):
    plan = plan_folding(fasta, str(esmfold_checkpoint), measure=False, max_tokens_per_batch=100)
    assert [(row["order"], row["name"], row["batch"]) for row in plan.targets] == [
        (1, "short", 2),
        (2, "two", 2),
        (3, "long", 1),
    ]
    assert plan.targets[1]["length"] == 14 + 25  # with the linker between chains
    peaks = [row["peak_bytes"] for row in plan.targets]
    assert peaks == sorted(peaks)
    assert all(row["pair_tensors"] > 1 and row["step"] and row["problem"] == "" for row in plan.targets)
    assert plan.seconds is None
    assert "line 7: 'bad'" in plan.notes[0]


def test_what_does_not_fit_says_so_and_the_others_are_planned_in_smaller_chunks(fasta: Path, esmfold_checkpoint: Path):
    free = plan_folding(fasta, str(esmfold_checkpoint), measure=False, max_tokens_per_batch=0)
    most = free.targets[1]["peak_bytes"] + 2**26
    plan = plan_folding(fasta, str(esmfold_checkpoint), measure=False, max_tokens_per_batch=0, max_memory=most)
    assert [bool(row["problem"]) for row in plan.targets] == [False, False, True]
    assert "a single sequence of" in plan.targets[2]["problem"]
    assert plan.targets[2]["peak_bytes"] is None
    assert 39 <= plan.machine[0]["longest_length"] < 3000


def test_a_released_model_is_planned_without_a_download():
    plan = plan_folding(None, "esmfold_v1", "w8a8-int8", compare=("fp32", "w4a8-int4"))
    rows = {row["recipe"]: row for row in plan.machine}
    assert [row["execution"] for row in plan.machine] == ["integer", "float", "integer"]
    # What the process takes by itself is more, and differs.
    base = rows["fp32"]["resident_bytes"] - 4 * 3_525_038_915
    assert 0 < base < 2 * GIB
    assert 3.53e9 < rows["w8a8-int8"]["resident_bytes"] - base < 3.62e9
    assert 1.75e9 < rows["w4a8-int4"]["resident_bytes"] - base < 2.1e9
    longest = [rows[name]["longest_length"] for name in ("w4a8-int4", "w8a8-int8", "fp32")]
    assert longest == sorted(longest, reverse=True)


def test_a_limit_that_the_weights_pass_leaves_nothing():
    plan = plan_folding(None, "esmfold_v1", "fp32", max_memory="8GiB")
    assert plan.machine[0]["longest_length"] == 0
    assert plan.machine[0]["available_bytes"] < 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "esm2_t6_8M"}, "is a language model and cannot fold"),
        ({"model": "esmfold_v2"}, "neither a known model"),
        ({"max_memory": "12 gigs"}, "not an amount of memory"),
        ({"chunk_size": 0}, "the chunk size is 0"),
        ({"quant": "w8a9"}, "w8a9"),
    ],
)
def test_what_cannot_be_planned_is_refused(settings: dict, message: str):
    with pytest.raises(ProtquantError, match=message):
        plan_folding(None, **settings)


def test_times_are_those_of_the_parts_as_often_as_they_run(fasta: Path, esmfold_checkpoint: Path, monkeypatch):
    def parts(_model: object, length: int) -> dict[str, float]:
        return {
            "lm.layers.0": 1 + length,
            "trunk.blocks.0": 2 * length**2 + 3 * length**3,
            "trunk.structure_module": 5.0,
        }

    monkeypatch.setattr(time_estimate, "_run", parts)
    plan = plan_folding(fasta, str(esmfold_checkpoint), num_recycles=2, max_tokens_per_batch=0)
    estimate = {row["length"]: row["seconds"] for row in plan.targets}
    # Two layers, three passes through two blocks.
    layers, block, rest = 2 * (1 + 3000), 2 * (2 * 3000**2 + 3 * 3000**3), 5 * 3000 / 160
    assert estimate[3000] == pytest.approx(layers + 3 * (block + rest), rel=1e-6)
    assert plan.seconds == pytest.approx(sum(estimate.values()))


@pytest.mark.parametrize(
    ("quant", "execution"), [("w8a8-int8", "integer"), ("w8a8-uniform", "simulate"), ("fp32", None)]
)
def test_every_part_is_really_timed(esmfold: ESMFold, quant: str, execution: str | None):
    recipe = load_recipe(quant)
    running = Execution(recipe, execution, "auto", CPU)
    times = time_estimate.measure_times(esmfold.config, recipe, running, CPU, torch.float32)
    for part in (times.layer, times.block, times.rest):
        assert min(part) >= 0
        assert max(part) > 0
    assert times.seconds(400, 2) > times.seconds(400, 1) > times.seconds(200, 1) > 0


@pytest.mark.parametrize("seconds", [{64: 1.0, 160: 1.1}, {64: 0.1, 160: 9.0}, {64: 1.0, 160: 5.0}])
def test_no_part_takes_less_for_more_residues(seconds: dict[int, float]):
    factors = time_estimate._fit((2, 3), seconds)
    assert min(factors) >= 0
    assert time_estimate._value(factors, (2, 3), 160) == pytest.approx(seconds[160])
    assert time_estimate._value(factors, (2, 3), 320) > seconds[160]


def test_integers_beside_floats_of_16_bits_are_refused_or_left_out(esmfold_checkpoint: Path):
    with pytest.raises(ProtquantError, match="give --dtype float32"):
        plan_folding(None, str(esmfold_checkpoint), "w8a8-int8", execution="integer", dtype="bfloat16")
    plan = plan_folding(None, str(esmfold_checkpoint), compare=("w8a8-int8",), dtype="bfloat16")
    assert [row["recipe"] for row in plan.machine] == ["fp32"]
    assert "w8a8-int8: not planned:" in plan.notes[0]


def test_a_float_model_takes_most_while_it_is_loaded_for_half_precision():
    whole, half = (
        plan_folding(FASTA, "esmfold_v1", dtype=dtype, measure=False).targets[0]["peak_bytes"]
        for dtype in ("float32", "bfloat16")
    )
    assert half > 4 * 3_525_038_915
    assert half < whole
