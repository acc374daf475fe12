"""Results are in the file at once, known to the next run, and safe from other processes and from interruptions."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from protquant.errors import ProtquantError
from protquant.files.run_store import RunStore

DONE = ("done",)
SCORE = 0.1 + 0.2


@pytest.mark.parametrize("name", ["table.csv", "rows.jsonl"])
def test_a_row_is_in_the_file_at_once_and_known_to_the_next(tmp_path: Path, name: str):
    path = tmp_path / "new" / name
    RunStore(path, DONE).add("k1", {"status": "done", "score": SCORE, "name": "a, b"})
    RunStore(path, DONE).add("k2", {"status": "failed", "error": "no"})
    again = RunStore(path, DONE)
    assert again.finished("k1") == {"status": "done", "score": SCORE, "name": "a, b", "key": "k1"}
    assert again.finished("k2") is None
    assert again.finished("k3") is None


def test_another_attempt_takes_the_place_of_the_first_and_others_stay(tmp_path: Path):
    path = tmp_path / "table.csv"
    RunStore(path, DONE).add("k1", {"status": "failed"})
    table = RunStore(path, DONE)
    table.add("k2", {"status": "done"})
    table.add("k1", {"status": "done", "score": 1.0})
    assert pd.read_csv(path).to_dict("list") == {
        "status": ["done", "done"],
        "score": [1.0, pytest.approx(float("nan"), nan_ok=True)],
        "key": ["k1", "k2"],
    }
    assert [each.name for each in tmp_path.iterdir()] == ["table.csv"]


def test_columns_stay_in_their_order_even_where_no_row_has_a_value(tmp_path: Path):
    path = tmp_path / "table.csv"
    for key in ("k1", "k2"):
        RunStore(path, DONE).add(key, {"status": "done", "error": None, "score": 1.0})
    assert list(pd.read_csv(path)) == ["status", "error", "score", "key"]


def test_rows_of_json_lines_may_be_nested_and_have_values_that_are_not_finite(tmp_path: Path):
    RunStore(tmp_path / "rows.jsonl").add("k", {"targets": [{"name": "a", "score": math.inf}], "path": tmp_path})
    row = RunStore(tmp_path / "rows.jsonl").finished("k")
    assert row == {"targets": [{"name": "a", "score": math.inf}], "path": str(tmp_path), "key": "k"}


def test_a_cut_last_line_costs_one_row_only(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    for key in "ab":
        RunStore(path).add(key, {"x": 1})
    whole = path.read_bytes()
    for end in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:end])
        store = RunStore(path)
        assert [row["key"] for row in store.rows()] == ["a"]
        store.add("c", {"x": 2})
        assert [row["key"] for row in RunStore(path).rows()] == ["a", "c"]


@pytest.mark.parametrize("name", ["table.csv", "rows.jsonl"])
def test_processes_that_add_at_the_same_time_lose_no_row(tmp_path: Path, name: str):
    program = (
        "import sys; from pathlib import Path; from protquant.files.run_store import RunStore\n"
        "store = RunStore(Path(sys.argv[1]))\n"
        "for number in range(10): store.add(sys.argv[2] + str(number), {'x': number})"
    )
    command = [sys.executable, "-c", program, str(tmp_path / name)]
    processes = [subprocess.Popen([*command, part]) for part in "ab"]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert {row["key"] for row in RunStore(tmp_path / name).rows()} == {f"{p}{n}" for p in "ab" for n in range(10)}


def test_arrays_come_back_as_they_were_and_never_from_a_damaged_file(tmp_path: Path):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b/c": np.array([1.5, np.nan])}
    RunStore(tmp_path / "t.csv").add_arrays("k", arrays, {"seconds": SCORE})
    store = RunStore(tmp_path / "t.csv")
    back, facts = store.arrays("k") or ({}, None)
    assert facts == {"seconds": SCORE}
    assert {name: (array.dtype, array.tolist()) for name, array in back.items() if name == "a"} == {
        "a": (np.dtype("float32"), arrays["a"].tolist())
    }
    np.testing.assert_array_equal(back["b/c"], arrays["b/c"])
    (file,) = (tmp_path / "t.resume").iterdir()
    for content in (file.read_bytes()[:-3], file.read_bytes()[:-1] + b"x", b""):
        file.write_bytes(content)
        assert store.arrays("k") is None
    assert store.arrays("other") is None


def test_without_a_file_rows_are_kept_in_memory():
    store = RunStore(None, DONE)
    store.add("k", {"status": "done"})
    store.add_arrays("k", {}, None)
    assert store.finished("k") is not None
    assert store.arrays("k") is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("other.csv", "a,b\n1,2\n", "the column 'key' is missing"),
        ("other.csv", "", "cannot be read"),
        ("other.csv", "a\n1,2\n3,4,5\n", "other.csv"),
        ("rows.jsonl", '{"x": 1}\n', "rows.jsonl, line 1: the results are damaged"),
        ("table.txt", "", r"ends in \.csv"),
    ],
)
def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path, name: str, content: str, message: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(ProtquantError, match=message):
        RunStore(tmp_path / name, DONE)
    assert (tmp_path / name).read_text() == content
