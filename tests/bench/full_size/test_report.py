"""Tables, ratios and claims follow from what processes did, losses and failures with them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protquant.bench.full_size import FULL_SIZE, Fold, FullSizeReport, Plan, Preparation
from protquant.bench.full_size.report import Turns
from protquant.bench.full_size.stage import StageRecord
from protquant.bench.limited_process import ProcessOutcome
from protquant.errors import ProtquantError
from protquant.reporting import describe_machine

GIB = 2**30
MACHINE = describe_machine()
PLAN = Plan(
    preparations=(Preparation("w8", 8, disk=3.8), Preparation("w4", 10, disk=2.3)),
    folds=(Fold("w8", 128, 5), Fold("w4", 128, 3.8)),
    lengths=(64, 128),
    contenders=("transformers-float32", "transformers-bfloat16", "w8"),
)
DONE = ProcessOutcome(0, 100.0, 150.0, 8 * GIB, enforced=True, how="cgroup v1", resident_peak=6 * GIB)
KILLED = replace(DONE, exit_code=-9, over_limit=True)


def record(name: str, outcome: ProcessOutcome | None, result: dict[str, Any] | None, **other: Any) -> StageRecord:
    problem = None if result is not None else str(outcome)
    facts = {**MACHINE.to_dict(), "revision": "abc", **other}
    return StageRecord(name, "print", {"sequences": ["A"]}, facts, 0.1, outcome, result, problem)


def loaded(seconds: float, resident: float) -> dict[str, Any]:
    fold = {"residues": 128, "seconds": 20.0, "cpu_seconds": 39.0, "peak": 4 * GIB, "coordinates": [[0, 0, 0]]}
    return {"load_seconds": seconds, "loaded": {"resident": resident, "anonymous": 1}, "folds": [fold]}


def turn(name: str, seconds: dict[int, float], load_seconds: float = 1.0) -> StageRecord:
    points = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, seconds[64]]]
    folds = [
        {"residues": n, "seconds": s, "cpu_seconds": s, "peak": n * 2**20, "coordinates": points}
        for n, s in seconds.items()
    ]
    return record(name, DONE, {"load_seconds": load_seconds, "folds": folds})


def turns(name: str, *rounds: dict[int, float]) -> Turns:
    return Turns(name, [turn(f"round {number}, {name}", each) for number, each in enumerate(rounds, start=1)])


def report(**given: Any) -> FullSizeReport:
    w8 = record("quantize w8", DONE, {"bytes_on_disk": 3_600_000_000})
    parts: dict[str, Any] = {
        "preparations": [(PLAN.preparations[0], w8), (PLAN.preparations[1], record("quantize w4", KILLED, None))],
        "folds": [(PLAN.folds[0], record("fold", replace(DONE, limit=5 * GIB), loaded(16.0, 4.7e9)))],
        "turns": [
            turns("transformers-float32", {64: 10.0, 128: 30.0}, {64: 20.0, 128: 60.0}, {64: 12.0, 128: 33.0}),
            turns("transformers-bfloat16", {64: 5.0, 128: 40.0}, {64: 12.0, 128: 90.0}, {64: 6.0, 128: 44.0}),
            turns("w8", {64: 8.0, 128: 6.0}, {64: 16.0, 128: 15.0}, {64: 8.0, 128: 6.6}),
        ],
    }
    return FullSizeReport({"num_recycles": 0, "threads": 2}, MACHINE, PLAN, **{**parts, **given})


def holds(found: FullSizeReport) -> dict[str, tuple[str, bool | None]]:
    return {claim.claim: (claim.measured, claim.holds) for claim in found.claims}


def test_claims_are_held_to_what_was_measured():
    assert holds(report()) == {
        "quantize by w8": ("done", True),
        "w8 on disk": ("3.60 GB", True),
        "quantize by w4": ("KILLED: did not fit into 8 GiB", False),
        "w4 on disk": ("-", None),
        "fold 128 residues by w8": ("done", True),
        "fold 128 residues by w4": ("-", None),
        "load w8 from the disk": ("16.00 s", False),
        "resident after loading w8": ("4.70 GB of 4.74", True),
        "load w4 from the disk": ("-", None),
        "resident after loading w4": ("-", None),
    }


def test_a_limit_that_nothing_kept_proves_nothing():
    loose = record("quantize w8", replace(DONE, enforced=False, how="no rights"), {"bytes_on_disk": 1})
    found = report(preparations=[(PLAN.preparations[0], loose)])
    assert holds(found)["quantize by w8"] == ("no limit was enforced (done)", None)
    assert "LIMITS WERE NOT ENFORCED: no rights" in found.notes()
    assert dict(found.tables())["quantize"][0]["limit"] == "8 GiB, NOT ENFORCED"


def test_ratios_are_medians_of_rounds_and_losses_are_said():
    tables = dict(report().tables())
    first, second, ours = tables["64 residues, 0 recycles, by turns"]
    assert (first["fold s"], second["fold s"], ours["fold s"]) == (12.0, 6.0, 8.0)
    assert ours["x transformers-float32"] == "1.25 (1.25 - 1.38)"
    assert ours["x transformers-bfloat16"] == "0.75 (0.69 - 0.75)"
    assert ours["peak GiB"] == 64 / 1024
    assert ours["share of cores"] == "50%"
    notes = report().notes()
    assert "64 residues: the faster setting of transformers is transformers-bfloat16" in notes
    assert "LOSS: w8 is 0.75 times as fast as transformers-bfloat16 at 64 residues" in notes
    assert "128 residues: the faster setting of transformers is transformers-float32" in notes
    assert not any(line.startswith("LOSS") and "128" in line for line in notes)


def test_the_deviation_is_that_from_the_float32_of_transformers():
    first, second, _ = dict(report().tables())["64 residues, 0 recycles, by turns"]
    assert first["RMSD"] is None
    assert 0.1 < second["RMSD"] < 5.0


def test_a_contender_that_failed_has_its_reason_and_no_ratio():
    failed = Turns("w8", [turn("round 1, w8", {64: 8.0, 128: 6.0}), record("round 2, w8", KILLED, None)])
    found = report(turns=[*report().turns[:2], failed])
    row = dict(found.tables())["64 residues, 0 recycles, by turns"][2]
    assert (row["notes"], row["x transformers-float32"]) == ("KILLED: did not fit into 8 GiB", None)
    assert [each.name for each in found.failed] == ["quantize w4", "round 2, w8"]


def test_stages_of_different_revisions_are_named():
    other = record("quantize w8", DONE, {"bytes_on_disk": 1}, revision="def")
    assert "NOT ALIKE: revision of stages: abc, def" in report(preparations=[(PLAN.preparations[0], other)]).notes()
    assert not any("NOT ALIKE" in line for line in report().notes())


def test_the_document_has_every_process_but_no_coordinates(tmp_path: Path):
    document = json.loads(report().write(tmp_path / "full.json").read_text())
    assert len(document["stages"]) == 2 + 1 + 9
    killed = document["stages"][1]
    assert (killed["outcome"]["over_limit"], killed["result"]) == (True, None)
    assert killed["machine"] == {"cpu": MACHINE.cpu, "revision": "abc", "date": MACHINE.date}
    assert "coordinates" not in (tmp_path / "full.json").read_text()
    assert document["tables"]["claims"][0] == {
        "claim": "quantize by w8",
        "bound": "within 8 GiB",
        "measured": "done",
        "holds": "yes",
    }


def test_a_plan_names_only_what_is_there():
    assert {each.recipe for each in FULL_SIZE.folds} < {each.recipe for each in FULL_SIZE.preparations}
    with pytest.raises(ProtquantError, match="w3: no contender; there are transformers-float32"):
        replace(PLAN, contenders=("w3",))
