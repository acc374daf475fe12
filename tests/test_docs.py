"""The pages under docs/ do what they say: their Python blocks run in order, their recipes load."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from protquant.checkpoints.registry import LAYOUTS
from protquant.cli import app
from protquant.models import MODELS
from protquant.quant import FORMATS, STEPS, load_recipe

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "write_your_own_method.md"
FORMAT = DOCS / "add_a_format.md"
MODEL = DOCS / "add_a_model.md"
KERNEL = DOCS / "add_a_kernel.md"


def blocks(language: str, page: Path = PAGE) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def run_blocks(page: Path) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks("python", page):
        exec(compile(block, str(page), "exec"), names)
    return names


@pytest.fixture
def _own_steps():
    """What the page registers is gone after the test."""
    before = dict(STEPS)
    yield
    STEPS.clear()
    STEPS.update(before)


@pytest.mark.usefixtures("_own_steps")
def test_the_method_of_the_page_runs_and_lowers_the_drift():
    names = run_blocks(PAGE)
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


@pytest.fixture
def _own_models():
    """What the page registers is gone after the test."""
    yield
    for table in (MODELS, LAYOUTS):
        table.pop("bytenet", None)


@pytest.mark.usefixtures("_own_models")
def test_the_model_of_the_page_is_quantized_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names = run_blocks(MODEL)
    assert 0 == names["divergence"]["fp32"] < names["divergence"]["w8a8-int8"] < names["divergence"]["w4a8-smoothquant"]
    assert set(names["report_of_parts"].values()) == {"integer"}

    MODELS.pop("bytenet"), LAYOUTS.pop("bytenet")
    (tmp_path / "bytenet.py").write_text("".join(blocks("python", MODEL)[:2]))
    result = CliRunner().invoke(app, blocks("sh", MODEL)[0].split()[1:])
    assert result.exit_code == 0, result.output
    assert "w8a8-int8" in result.output


@pytest.mark.parametrize(("text", "message"), [(None, "no such Python file"), ("1 / 0", "ZeroDivisionError")])
def test_a_plugin_that_cannot_be_run_is_named(tmp_path: Path, text: str | None, message: str):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    result = CliRunner().invoke(app, ["--plugin", str(path), "recipes"])
    assert result.exit_code == 2
    assert message in result.output
    assert "mine.py" in result.output


@pytest.fixture
def _own_formats():
    """What the page registers is gone after the test."""
    before = dict(FORMATS)
    yield
    FORMATS.clear()
    FORMATS.update(before)


@pytest.mark.usefixtures("_own_formats")
def test_the_format_of_the_page_keeps_its_promises():
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks("python", FORMAT):
        exec(compile(block, str(FORMAT), "exec"), names)


@pytest.mark.usefixtures("_own_formats")
def test_the_format_of_the_page_runs_as_a_plugin(tmp_path: Path, esm2_checkpoint: Path, structures_folder: Path):
    (tmp_path / "logarithmic.py").write_text(blocks("python", FORMAT)[0])
    (tmp_path / "w4-logarithmic.yaml").write_text(blocks("yaml", FORMAT)[0])
    words = blocks("sh", FORMAT)[0].split()[1:]
    words = [str(tmp_path / word) if word.endswith((".py", ".yaml")) else word for word in words]
    words[words.index("demo")] = str(esm2_checkpoint)
    result = CliRunner().invoke(app, [*words, "--structures", str(structures_folder)])
    assert result.exit_code == 0, result.output
    assert "w4-logarithmic" in result.output


def test_the_kernel_of_the_page_gives_what_its_reference_gives(tmp_path: Path):
    path = tmp_path / "code_sums.py"  # triton reads the source of a kernel from its file
    path.write_text("\n".join(blocks("python", KERNEL)))
    spec = importlib.util.spec_from_file_location("code_sums", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(ValueError, match="side by side"):
        module.code_sums(module.torch.zeros(4, 4, dtype=module.torch.int8).T)
