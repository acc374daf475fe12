"""The command `protquant demo`."""

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from protquant import cli


@pytest.mark.slow
def test_the_demo_folds_its_example_on_integers_and_prints_one_comparison(tmp_path: Path):
    result = CliRunner().invoke(cli.app, ["demo", "-o", str(tmp_path), "--limit", "1"])
    assert result.exit_code == 0, result.output
    predictions = pd.read_csv(tmp_path / "predictions.csv")
    assert list(predictions.execution) == ["integer"] * 4
    assert {f"{name}.pdb" for name in predictions.name} <= {path.name for path in tmp_path.iterdir()}
    for heading in ("weight MB", "peak MB", "seconds", "x as fast", "TM", "RMSD"):
        assert heading in result.stdout
    assert "Measured on 1 of the 50 chains" in result.stdout
    assert "Not measured: " in result.stdout
    table = pd.read_csv(tmp_path / "comparison.csv").set_index(["recipe", "execution"])
    assert table.loc[("fp32", "float"), "tm_score"] > 0.9
    assert table.loc[("w8a8-int8", "integer"), "tm_to_float"] > 0.9
    assert table.loc[("w8a8-int8", "integer"), "weight_bytes"] < table.loc[("fp32", "float"), "weight_bytes"] / 2
