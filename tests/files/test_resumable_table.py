from pathlib import Path

import pandas as pd
import pytest

from protquant.errors import ProtquantError
from protquant.files.resumable_table import ResumableTable


def test_a_row_is_in_the_file_at_once_and_known_to_the_next(tmp_path: Path):
    path = tmp_path / "new" / "table.csv"
    table = ResumableTable(path, ("done",))
    table.add("k1", {"status": "done", "score": 0.1 + 0.2, "name": "a, b"})
    assert pd.read_csv(path).name.tolist() == ["a, b"]
    table.add("k2", {"status": "failed", "error": "no"})
    again = ResumableTable(path, ("done",))
    assert again.finished("k1") == {"status": "done", "score": 0.1 + 0.2, "name": "a, b", "key": "k1"}
    assert again.finished("k2") is None
    assert again.finished("k3") is None


def test_another_attempt_takes_the_place_of_the_first_and_others_stay(tmp_path: Path):
    path = tmp_path / "table.csv"
    ResumableTable(path, ("done",)).add("k1", {"status": "failed"})
    table = ResumableTable(path, ("done",))
    table.add("k2", {"status": "done"})
    table.add("k1", {"status": "done", "score": 1.0})
    assert pd.read_csv(path).to_dict("list") == {
        "status": ["done", "done"],
        "score": [1.0, pytest.approx(float("nan"), nan_ok=True)],
        "key": ["k1", "k2"],
    }


def test_without_a_file_rows_are_kept_in_memory():
    table = ResumableTable(None, ("done",))
    table.add("k", {"status": "done"})
    assert table.finished("k") is not None


def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path):
    path = tmp_path / "other.csv"
    for content, message in (
        ("a,b\n1,2\n", "a column 'key' is missing"),
        ("", "cannot be read"),
        ("a\n1,2\n3,4,5\n", "other.csv"),
    ):
        path.write_text(content)
        with pytest.raises(ProtquantError, match=message):
            ResumableTable(path, ("done",))
        assert path.read_text() == content
    with pytest.raises(ProtquantError, match=r"ends in \.csv"):
        ResumableTable(tmp_path / "table.parquet", ("done",))
