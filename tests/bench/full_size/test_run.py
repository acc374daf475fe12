"""The benchmark runs whole on few weights: processes are real, limits are kept, and what stands is not run again."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from protquant.bench.full_size import Fold, FullSizeReport, Plan, Preparation, bench_full_size
from protquant.bench.memory_limit import memory_limit
from protquant.errors import ProtquantError

FLOAT = ("transformers-float32", "protquant-float32")
PLAN = Plan(
    preparations=(Preparation("w8a8-int8", limit=4, disk=1), Preparation("w4a8-int4", limit=0.05)),
    folds=(Fold("w8a8-int8", 12, limit=4), Fold("w4a8-int4", 12, limit=4)),
    lengths=(8, 12),
    contenders=("protquant-float32", "w8a8-int8"),  # that of transformers has a test of its own
)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peaks and limits are Linux's")


def can_limit() -> bool:
    limit = memory_limit(2**30)
    limit.close()
    return limit.enforced


def run(checkpoint: Path, folder: Path, plan: Plan, **given) -> tuple[FullSizeReport, list[str]]:
    said: list[str] = []
    found = bench_full_size(checkpoint, folder, plan, rounds=1, threads=1, say=said.append, **given)
    return found, said


@pytest.mark.slow
def test_our_float_model_folds_as_that_of_transformers(small_checkpoint: Path, tmp_path: Path):
    plan = Plan((), (), lengths=(8, 12), contenders=("transformers-float32", "transformers-bfloat16", *FLOAT[1:]))
    found, _ = run(small_checkpoint, tmp_path / "work", plan)
    assert not found.failed
    tables = dict(found.tables())
    for length in plan.lengths:
        float32, bfloat16, ours = tables[f"{length} residues, 0 recycles, by turns"]
        assert float32["RMSD"] is None
        # Only the language model differs: transformers keeps it in half precision.
        assert ours["RMSD"] < 0.02 < bfloat16["RMSD"]
    types = {turn.candidate: turn.records[0].result.get("types") for turn in found.turns}
    assert types["transformers-float32"] == {"language model": ["float16"], "trunk": ["float32"]}
    assert types["transformers-bfloat16"] == {"language model": ["bfloat16"], "trunk": ["bfloat16"]}


@pytest.mark.slow
@pytest.mark.skipif(not can_limit(), reason="control groups of memory cannot be made here (not root?)")
def test_all_parts_run_and_stand(small_checkpoint: Path, calibration_file: Path, tmp_path: Path):
    given = {"calibration": calibration_file}
    found, _ = run(small_checkpoint, tmp_path / "work", PLAN, **given)
    claims = {claim.claim: claim.holds for claim in found.claims}
    assert claims["quantize by w8a8-int8"] and claims["w8a8-int8 on disk"] and claims["fold 12 residues by w8a8-int8"]
    assert claims["quantize by w4a8-int4"] is False
    assert claims["fold 12 residues by w4a8-int4"] is None
    assert [record.problem for record in found.failed] == ["KILLED: did not fit into 0.05 GiB"]
    assert "NOT RUN: fold 12 residues by w4a8-int4: there is no checkpoint quantized by w4a8-int4" in found.notes()
    made = tmp_path / "work" / "w8a8-int8"
    assert sum(path.stat().st_size for path in made.iterdir()) == found.preparations[0][1].result["bytes_on_disk"]
    assert not (tmp_path / "work" / "statistics").exists()
    (asked, folded) = found.folds[0]
    assert (asked.residues, folded.result["warm_up_seconds"]) == (12, None)
    assert "parts on integers" in folded.result["support"]
    assert 2**28 < folded.outcome.resident_peak < 2**32
    assert len(found.turns) == 2
    for turn in found.turns:
        assert [fold["residues"] for fold in turn.records[0].result["folds"]] == [8, 12]
        assert 0 < turn.records[0].result["loaded"]["anonymous"] < turn.records[0].result["loaded"]["resident"]

    # A checkpoint that was made otherwise serves.
    shutil.copytree(made, tmp_path / "other" / "w8a8-int8")
    other, _ = run(small_checkpoint, tmp_path / "other", PLAN, parts=["fold"], **given)
    assert [(asked.recipe, record.problem) for asked, record in other.folds] == [("w8a8-int8", None)]
    assert "NOT RUN: quantize w8a8-int8: part quantize was not asked for, and no result stands" in other.notes()

    # What stands is shown, whatever parts are asked for; what failed is run again only as a part of what is asked for.
    again, said = run(
        small_checkpoint, tmp_path / "work", PLAN, parts=["turns"], again=["round 1, protquant-f"], **given
    )
    assert [line for line in said if "begins" in line] == [
        line for line in said if line.startswith("round 1, protquant-float32: begins")
    ]
    assert "stands from" in said[0]
    assert len(again.turns) == 2
    assert again.preparations[0][1] == found.preparations[0][1]
    assert again.turns[1].records == found.turns[1].records
    assert any("part quantize was not asked for" in line for line in again.notes())
    assert json.loads(again.write(tmp_path / "again.json").read_text())["stages"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parts": ["folding"]}, "--part folding: not known"),
        ({"rounds": 0}, "--rounds 0: give 1 or more"),
        ({"num_recycles": -1}, "the number of recycles is -1"),
    ],
)
def test_what_cannot_be_run_is_refused(small_checkpoint: Path, tmp_path: Path, arguments, message):
    with pytest.raises(ProtquantError, match=message):
        bench_full_size(small_checkpoint, tmp_path / "work", PLAN, **arguments)
    assert not (tmp_path / "work").exists()


def test_a_folder_that_is_no_checkpoint_is_refused(esmfold_checkpoint: Path, tmp_path: Path):
    with pytest.raises(ProtquantError, match=r"config\.json: cannot be read .*; make one with `protquant bench"):
        bench_full_size(tmp_path, tmp_path / "work")
    with pytest.raises(ProtquantError, match="no ESMFold of transformers with safetensors; make one"):
        bench_full_size(esmfold_checkpoint, tmp_path / "work", replace(PLAN, contenders=FLOAT))
