"""Integers and the simulation of a recipe fold alike: the claim of every recipe that says it is for integers."""

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from protquant.bench import PAIRS, measure_agreement, summarize_agreement
from protquant.cli import app
from protquant.errors import ProtquantError
from protquant.preparing import calibration_sequences
from protquant.quant import available_recipes, load_recipe

FOR_INTEGERS = [name for name in available_recipes() if load_recipe(name).execution == "integer"]


@pytest.mark.slow
def test_the_demo_model_folds_alike_on_integers_and_by_simulation(tmp_path: Path):
    assert len(FOR_INTEGERS) >= 4
    few = tmp_path / "calibration.fasta"  # all twelve take longer than the folding
    few.write_text("".join(f">{number}\n{each}\n" for number, each in enumerate(calibration_sequences(limit=2))))
    table = measure_agreement("demo", FOR_INTEGERS, limit=4, num_recycles=0, calibration=few, progress=False)
    assert list(table["recipe"].value_counts()) == [4] * len(FOR_INTEGERS)
    assert table["support"].str.contains("parts on integers").all()
    for recipe, rows in table.groupby("recipe"):
        # At most 0.1 over all 50 chains, see docs/integer.md; four of them scatter.
        assert 0.001 < rows["integer to simulation, RMSD"].median() <= 0.12, recipe
        assert rows["integer to simulation, TM"].mean() >= 0.999, recipe
        assert rows["integer to simulation, TM"].min() >= 0.995, recipe


def test_a_summary_has_the_median_the_mean_and_the_least():
    values = {f"{pair}, {what}": [0.1, 0.2, 0.9] for pair in PAIRS for what in ("RMSD", "TM")}
    rows = summarize_agreement(pd.DataFrame({"recipe": "a", "chain": ["x", "y", "z"], **values}))
    assert [row["pair"] for row in rows] == list(PAIRS)
    expected = {"recipe": "a", "pair": PAIRS[0], "chains": 3, "RMSD": 0.2, "TM": pytest.approx(0.4), "least TM": 0.1}
    assert rows[0] == expected


def test_the_command_prints_a_summary_and_writes_all_chains(calibration_file: Path, tmp_path: Path):
    command = ["bench", "agreement", "-q", "w8a8-int8", "--limit", "1", "--num-recycles", "0"]
    files = ["--calibration", str(calibration_file), "-o", str(tmp_path / "chains.csv")]
    result = CliRunner().invoke(app, [*command, *files])
    assert result.exit_code == 0, result.output
    assert "integer to simulation" in result.output
    assert "parts on integers" in result.output
    (row,) = pd.read_csv(tmp_path / "chains.csv").to_dict("records")
    assert row["recipe"] == "w8a8-int8"
    assert row["length"] > 10
    assert 0 < row["integer to simulation, RMSD"] < 1


def test_two_recipes_of_one_name_are_refused():
    with pytest.raises(ProtquantError, match="w8a8-int8, w8a8-int8: each recipe once"):
        measure_agreement("demo", ["w8a8-int8", "w8a8-int8"])


def test_a_table_that_cannot_be_written_is_refused_before_the_work():
    result = CliRunner().invoke(app, ["bench", "agreement", "-o", "table.txt"])
    assert result.exit_code == 2
    assert "table.txt" in result.output
