"""A worker is a process of its own: it answers, tells what went wrong, and ends with the benchmark."""

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from protquant.bench import Candidate, paired_benchmark
from protquant.bench.worker import Run, Worker
from protquant.bench.worker_process import CandidateError, WorkerProcess, allocator_variables, target_of
from protquant.errors import ProtquantError

MIB = 2**20
spec = importlib.util.spec_from_file_location("candidates", Path(__file__).with_name("candidates.py"))
candidates = sys.modules["candidates"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(candidates)
linux = pytest.mark.skipif(sys.platform != "linux", reason="peaks are Linux's")


def started(worker: WorkerProcess, build, **arguments) -> WorkerProcess:
    worker.ask("build", target=target_of(build, is_script=True), arguments=arguments)
    return worker


def test_a_turn_takes_what_the_work_takes_and_what_is_printed_does_no_harm():
    with WorkerProcess(1) as process:
        worker = started(process, candidates.sleeps, seconds=0.05)
        assert 0.05 <= worker.ask("turn")["seconds"][0] < 1
        answer = worker.ask("turn", arguments={"more": 0.1}, repeat=2, show=True)
        assert len(answer["seconds"]) == 2 and min(answer["seconds"]) >= 0.15
        assert (answer["result"], answer["cpu_seconds"] < 0.1) == ("slept", True)
        assert worker.ask("tell") == {"notes": "", "details": {}}


def test_it_computes_with_so_many_threads_and_imports_nothing_else():
    with WorkerProcess(3) as process:
        found = started(process, candidates.tells).ask("turn", show=True)["result"]
        assert (found["threads"], found["has torch"]) == ("3", False)


@linux
def test_it_ends_with_the_benchmark():
    with WorkerProcess(1) as process:
        pid = started(process, candidates.tells).ask("turn", show=True)["result"]["pid"]
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


def test_what_went_wrong_is_told_in_a_line_and_it_goes_on():
    with WorkerProcess(1) as process:
        with pytest.raises(CandidateError, match=r"^ValueError: no such model$"):
            started(process, candidates.fails)
        assert started(process, candidates.sleeps, seconds=0).ask("turn")["seconds"]


def test_a_process_that_ends_by_itself_is_told():
    with WorkerProcess(1) as process, pytest.raises(CandidateError, match=r"its process ended \(code 3\)"):
        started(process, candidates.ends).ask("turn")


@linux
def test_a_peak_is_that_of_its_own_process():
    ours = bytearray(b"x") * (300 * MIB)
    with WorkerProcess(1) as process:
        worker = started(process, candidates.allocates, mebibytes=100)
        memory = worker.ask("turn", memory=True, trim=True)["memory"]
    assert 95 * MIB < memory["peak"] - memory["before"] < 120 * MIB
    assert memory["peak"] < len(ours)


def test_an_interpreter_that_is_not_there_is_named():
    with pytest.raises(ProtquantError, match="no/such/python: cannot be started"):
        WorkerProcess(1, "no/such/python")


def test_variables_of_the_allocator_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "4294967296")
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    assert allocator_variables()["MALLOC_TRIM_THRESHOLD_"] == "4294967296"
    assert "MALLOC_ARENA_MAX" not in allocator_variables()


def test_candidates_take_turns_in_processes_that_stay(tmp_path: Path):
    started_at = time.perf_counter()
    slow = Candidate("slow", candidates.sleeps, {"seconds": 0.1}, python=sys.executable)
    quick = Candidate("quick", candidates.sleeps, {"seconds": 0.05}, python=sys.executable)
    absent = Candidate("absent", candidates.fails, {}, python=sys.executable)
    results = paired_benchmark([slow, quick, absent], ["slow"], rounds=3, warmups=0, progress=False)
    assert results[1].ratios["slow"].median == pytest.approx(2, rel=0.2)
    assert results[2].error == "set up: ValueError: no such model"
    assert time.perf_counter() - started_at < 60


def test_an_array_is_saved(tmp_path: Path):
    worker = Worker()
    worker.run, worker.device = Run(lambda: [1, 2], np.asarray), "cpu"
    worker.turn(save=str(tmp_path / "saved.npy"))
    assert np.load(tmp_path / "saved.npy").tolist() == [1, 2]
