"""The plan is held to real processes on a small checkpoint."""

import json
import sys
from pathlib import Path

import pytest

from protquant.bench.full_size import Combination, bench_memory
from protquant.errors import ProtquantError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peaks are Linux's")


@pytest.mark.slow
def test_a_plan_and_a_fold_are_compared_and_stand(small_checkpoint: Path, tmp_path: Path):
    said: list[str] = []
    combinations = [Combination("fp32", "float", 48, 8)]
    report = bench_memory(small_checkpoint, tmp_path / "work", combinations, threads=1, say=said.append)
    (row,) = report.rows()
    assert row["notes"] == ""
    assert 0.5 < row["planned / measured"] < 2
    assert row["kept"] == ("yes" if row["planned / measured"] >= 1 else "NO")
    path = report.write(tmp_path / "memory.json")
    (kept,) = json.loads(path.read_text())["combinations"]
    assert kept["planned"]["chunk_size"] == kept["chunk_size"] == 8
    assert kept["outcome"]["exit_code"] == 0
    said.clear()
    again = bench_memory(small_checkpoint, tmp_path / "work", combinations, threads=1, say=said.append)
    # The plan is made anew; what folded within the same plan stands.
    assert any("plan 48" in line for line in said)
    assert again.rows()[0]["planned GiB"] == pytest.approx(row["planned GiB"], rel=0.05)


def test_a_checkpoint_that_is_not_there_is_named_with_the_command_that_makes_it(small_checkpoint: Path, tmp_path: Path):
    with pytest.raises(ProtquantError, match=r"w8a8-int8: no such checkpoint; make it with `protquant bench full-size"):
        bench_memory(small_checkpoint, tmp_path, [Combination("w8a8-int8", "integer", 16)])
