"""The pages under docs/ do what they say: their Python blocks run in order, their recipes load."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from protquant.cli import app
from protquant.quant import STEPS, load_recipe

PAGE = Path(__file__).parents[1] / "docs" / "write_your_own_method.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture
def _own_steps():
    """What the page registers is gone after the test."""
    before = dict(STEPS)
    yield
    STEPS.clear()
    STEPS.update(before)


@pytest.mark.usefixtures("_own_steps")
def test_the_method_of_the_page_runs_and_lowers_the_drift():
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks("python"):
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["drift"]["mine"] < names["drift"]["plain"]
    assert names["drift"]["fp32"] == 0


@pytest.mark.usefixtures("_own_steps")
def test_the_method_of_the_page_runs_as_a_plugin(tmp_path: Path, esm2_checkpoint: Path, structures_folder: Path):
    (tmp_path / "rms_equalization.py").write_text(blocks("python")[0])
    (tmp_path / "w4a8-mine.yaml").write_text(blocks("yaml")[0])
    words = blocks("sh")[0].split()[1:]
    words = [str(tmp_path / word) if word.endswith((".py", ".yaml")) else word for word in words]
    words[words.index("demo")] = str(esm2_checkpoint)
    result = CliRunner().invoke(app, [*words, "--structures", str(structures_folder)])
    assert result.exit_code == 0, result.output
    assert "w4a8-mine" in result.output
    assert load_recipe(tmp_path / "w4a8-mine.yaml").to_dict()["steps"] == [{"step": "rms_equalization", "alpha": 0.5}]


@pytest.mark.parametrize(("text", "message"), [(None, "no such Python file"), ("1 / 0", "ZeroDivisionError")])
def test_a_plugin_that_cannot_be_run_is_named(tmp_path: Path, text: str | None, message: str):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    result = CliRunner().invoke(app, ["--plugin", str(path), "recipes"])
    assert result.exit_code == 2
    assert message in result.output
    assert "mine.py" in result.output
