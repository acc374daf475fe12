"""The benchmarks run whole, on sizes that take no time; what is claimed is that rows are there and right."""

import pytest

from protquant.bench import LinearShape, bench_lm, bench_ops, bench_trunk
from protquant.bench import lm as lm_module
from protquant.bench import ops as ops_module
from protquant.bench import trunk as trunk_module
from protquant.bench import workloads as workloads_module
from protquant.errors import ProtquantError
from protquant.integer import language_model as language_model_module
from protquant.integer import recording as recording_module
from protquant.kernels.cpu import features
from protquant.kernels.cpu.features import exact_products
from protquant.models import ESM2Config
from protquant.models.trunk import TrunkConfig


@pytest.fixture
def small(workers_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = TrunkConfig(single_dim=32, pair_dim=16, single_head_dim=8, pair_head_dim=8)
    monkeypatch.setitem(trunk_module.TRUNK_PRESETS, "small", trunk)
    monkeypatch.setitem(lm_module.LM_PRESETS, "small", ESM2Config(num_layers=2, dim=32, num_heads=4, ffn_dim=64))
    monkeypatch.setattr(workloads_module, "_UNIFORM", (2, 12))
    monkeypatch.setattr(workloads_module, "_RAGGED", 3)
    shapes = {"tiny": LinearShape("a test", 33, 128, 64), "other": LinearShape("a test", 40, 64, 32)}
    monkeypatch.setattr(ops_module, "LINEAR_SHAPES", shapes)


def test_a_trunk_block_is_timed_against_all_baselines(small):
    report = bench_trunk("small", 10, rounds=2, memory=True, progress=False)
    (section,) = report.sections
    assert not report.failed
    assert [result.name for result in section.results] == list(section.baselines)
    assert all(len(result.seconds) == 2 for result in section.results)
    deviations = [result.deviation for result in section.results]
    assert deviations[0] == 0
    assert deviations[2] < 1e-5  # our float32 block
    assert 1e-4 < deviations[1] < 0.05  # bfloat16
    assert all(result.memory is not None for result in section.results)


def test_a_recipe_is_quantized_then_run_on_integers(small):
    report = bench_trunk("small", 10, ["w8a8-int8"], baselines=["protquant-float32"], rounds=1, progress=False)
    result = report.sections[0].results[1]
    assert result.error is None
    assert 1e-4 < result.deviation < 0.2
    assert "parts on integers" in result.notes
    assert {part["runs"] for part in result.details["parts"]} == {"integer"}
    assert sum(result.details["calls"].values()) > 0
    assert result.details["weight_bytes"] >= result.details["weight_elements"] > 0


def test_what_is_asked_for_runs(small):
    given = {"baselines": ["protquant-float32"], "rounds": 1, "progress": False}
    for backend in ("reference", "cpu"):
        result = bench_trunk("small", 6, ["w8a8-int8"], backend=backend, **given).sections[0].results[1]
        kernels = {call.rpartition(" by ")[2] for call in result.details["calls"]}
        assert kernels, backend
        assert ("reference" in kernels) == (backend == "reference")


def test_a_recipe_that_cannot_run_on_integers_is_a_row(small):
    # The float model is not quantized at all.
    report = bench_trunk("small", 10, ["fp32"], baselines=["protquant-float32"], rounds=1, progress=False)
    sound, refused = report.sections[0].results
    assert sound.error is None
    assert refused.error.startswith("set up: ProtquantError: fp32 leaves everything in float")


def test_a_language_model_runs_on_integers_on_all_workloads(small):
    report = bench_lm("small", quants=["w8a8-int8"], baselines=["protquant-float32"], rounds=1, progress=False)
    assert not report.failed
    for section in report.sections:
        assert 1e-4 < section.results[1].deviation < 0.2
        assert "parts on integers" in section.results[1].notes
        calls = section.results[1].details["calls"]  # of one run
        assert sum(count for call, count in calls.items() if call.startswith("linear")) == 2 * 4


def test_a_recording_is_a_row_only_where_one_can_be_made(small, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recording_module, "_DEVICES", ("cpu",))
    given = {"baselines": ["protquant-float32"], "rounds": 1, "progress": False}
    # Nothing to record on a CPU, which the row says; and a recipe that cannot run at all fails in both.
    report = bench_lm("small", ["uniform"], ["w8a8-int8", "fp32"], **given)
    _, launched, recorded, refused, too = report.sections[0].results
    assert launched.details["calls"][f"linear by {features().product}"] == 8
    assert (recorded.name, recorded.notes) == ("w8a8-int8, recorded", "NOT recorded: as the row above")
    assert "in float" in refused.error and "in float" in too.error and too.notes == ""
    monkeypatch.setattr(language_model_module, "_MOST_TOKENS", 20)
    (section,) = bench_lm("small", ["uniform"], ["w8a8-int8"], **given).sections
    assert [result.name for result in section.results] == ["protquant-float32", "w8a8-int8"]


def test_language_models_are_timed_on_both_workloads(small):
    names = ["transformers-float32-eager", "protquant-bfloat16"]
    report = bench_lm("small", baselines=names, rounds=1, progress=False)
    assert not report.failed
    assert [section.facts["sequences"] for section in report.sections] == [2, 3]
    for section in report.sections:
        assert [result.name for result in section.results] == names
        assert section.results[1].deviation < 0.05


def test_linear_layers_are_timed_and_right(small):
    report = bench_ops(["tiny", "other"], rounds=1, progress=False)
    for section in report.sections:
        found = {result.name: result for result in section.results}
        assert not report.failed
        for name in ("torch int8", "int8", "int8 to codes", "int8 by token"):
            assert found[name].deviation < 0.05, name
        assert 0.01 < found["int4"].deviation < 0.2
        # The bare product and the whole layer are the same sum, where the bare one does not saturate.
        if "onednn" in exact_products():
            assert found["int8"].deviation == pytest.approx(found["torch int8"].deviation, rel=1e-3)


def test_a_report_says_how_many_threads_workers_were_given(small):
    report = bench_trunk("small", 4, baselines=["protquant-float32"], rounds=1, threads=7, progress=False)
    assert (report.machine.threads, report.settings["threads"]) == (7, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "esmfold"}, "--preset esmfold: no such preset of a trunk; did you mean esmfold_v1"),
        ({"baselines": ["transformers"]}, "--baseline transformers: not known"),
        ({"backend": "opencl"}, "unknown backend 'opencl'"),
        ({"length": 0}, "a protein of 0 residues"),
        ({"baselines": []}, "nothing to run"),
        ({"preset": "demo", "length": 4, "threads": 0}, "--threads 0"),
    ],
)
def test_what_cannot_be_run_is_refused_before_the_work(arguments, message):
    with pytest.raises(ProtquantError, match=message):
        bench_trunk(**arguments)
