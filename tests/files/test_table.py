"""Tables of results."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from protquant.errors import ProtquantError
from protquant.files import write_table

ROWS = [{"name": "a", "ptm": 0.5}, {"name": 'b, "two"', "ptm": float("nan"), "error": "why"}]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_a_csv_table_is_read_back(tmp_path: Path, name: str) -> None:
    frame = pd.read_csv(write_table(ROWS, tmp_path / name))
    assert list(frame.columns) == ["name", "ptm", "error"]
    assert frame["name"].tolist() == ["a", 'b, "two"']
    assert frame["ptm"][0] == 0.5
    assert frame["ptm"].isna().tolist() == [False, True]


def test_columns_can_be_chosen_and_stay_without_rows(tmp_path: Path) -> None:
    assert write_table([], tmp_path / "t.csv", columns=["name", "ptm"]).read_text() == "name,ptm\n"
    assert write_table(ROWS[:1], tmp_path / "t.csv", columns=["ptm"]).read_text() == "ptm\n0.5\n"


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_table(ROWS, tmp_path / name) for name in ("1.csv.gz", "2.csv.gz"))
    assert first.read_bytes() == second.read_bytes()


def test_a_parquet_table_is_read_back(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.read_parquet(write_table(ROWS, tmp_path / "t.parquet"))
    assert frame["name"].tolist() == ["a", 'b, "two"']
    with pytest.raises(ProtquantError, match="cannot be stored as Parquet"):
        write_table([{"x": 1}, {"x": "one"}], tmp_path / "u.parquet")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ProtquantError, match=r"pip install 'protquant\[parquet\]'"):
        write_table(ROWS, tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProtquantError, match=r"ends in \.csv, \.csv\.gz or \.parquet"):
        write_table(ROWS, tmp_path / "t.xlsx")
