"""A report has rows for people, and every round for who checks it."""

import json
from pathlib import Path

import torch

from protquant.bench import BenchReport, Ratio, Result, Section
from protquant.reporting import describe_machine
from protquant.running import PeakMemory


def report() -> BenchReport:
    sound = Result("ours", "fast", [1.0, 3.0, 2.0], {"theirs": Ratio(4.0, 3.5, 4.25)}, PeakMemory(3 * 2**20, ""), 0.01)
    failed = Result("theirs", error="set up: ModuleNotFoundError: not here")
    section = Section("work", [failed, sound], ("theirs",), {"tokens": 7})
    return BenchReport("trunk", {"length": 8}, describe_machine(), [section], ("a note",))


def test_rows_say_ratios_memory_and_failures():
    section = report().sections[0]
    assert section.columns == ["contender", "median s", "x theirs", "peak MiB", "deviation", "notes"]
    failed, sound = section.rows()
    assert failed["notes"] == "FAILED: set up: ModuleNotFoundError: not here"
    assert (failed["median s"], failed["x theirs"]) == (None, None)
    assert sound["x theirs"] == "4.00 (3.50 - 4.25)"
    assert (sound["median s"], sound["peak MiB"], sound["deviation"]) == (2.0, "3", 0.01)


def test_a_file_has_the_time_of_every_round(tmp_path: Path):
    path = report().write(tmp_path / "bench.json")
    document = json.loads(path.read_text())
    assert document["benchmark"] == "trunk"
    assert document["machine"]["versions"]["torch"] == torch.__version__
    failed, sound = document["sections"][0]["contenders"]
    assert sound["seconds"] == [1.0, 3.0, 2.0]
    assert sound["ratios"]["theirs"] == {"median": 4.0, "low": 3.5, "high": 4.25}
    assert failed["error"].startswith("set up")
    assert [result.name for result in report().failed] == ["theirs"]
