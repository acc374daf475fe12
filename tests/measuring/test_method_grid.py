from pathlib import Path

import pytest
import yaml

from protquant.checkpoints import load
from protquant.errors import ProtquantError
from protquant.measuring.method_grid import MethodGrid, group_size, load_method_grid, write_recipes
from protquant.quant import Uniform, load_recipe, plan
from protquant.quant.steps import SmoothQuant
from protquant.sites import WEIGHT_KINDS

GRID = """
settings:
  W4A8: {weight_bits: 4, activation_bits: 8}
  W3: {weight_bits: 3}
  A6: {activation_bits: 6}
common:
  calibration: {range: minmax}
  kinds:
    linear_weight: {format: uniform, bits: "${weight_bits}", symmetric: false, granularity: channel}
    linear_input: {format: uniform, bits: "${activation_bits}", symmetric: false}
    norm_input: {format: uniform, bits: 16, symmetric: false}
methods:
  - {name: plain, title: Plain, settings: [W4A8, W3, A6]}
  - &groups
    name: groups
    settings: [W4A8]
    parts: [language]
    kinds:
      linear_weight: {format: uniform, bits: "${weight_bits}", granularity: group, group_size: "${group_size}"}
    steps: [{step: smoothquant, alpha: 0.6}]
  - {<<: *groups, parts: [folding], steps: [{step: smoothquant, alpha: 0.7}]}
  - name: later
    settings: [W3]
    steps: [{step: tomorrow}]
    kinds: {linear_weight: {format: someday, bits: "${weight_bits}"}}
"""


@pytest.fixture
def grid(tmp_path: Path) -> MethodGrid:
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    return load_method_grid(path)


def test_interpolations_become_the_bits_of_the_setting(grid: MethodGrid):
    by_setting = {cell.setting: cell.recipe for cell in grid.cells("language", 8, ["plain"])}
    assert list(by_setting) == ["W4A8", "W3", "A6"]
    kinds = by_setting["W4A8"].kinds
    assert [kinds[kind].bits for kind in ("linear_weight", "linear_input", "norm_input")] == [4, 8, 16]
    assert set(by_setting["W3"].kinds) == {"linear_weight"}  # what has no bits stays in float, and all like it
    assert set(by_setting["A6"].kinds) == {"linear_input", "norm_input"}
    assert by_setting["W4A8"].name == "w4a8-plain"
    assert by_setting["W4A8"].description == "Plain at W4A8"


def test_a_method_is_laid_over_what_all_have_and_a_part_over_the_method(grid: MethodGrid):
    (language,), (folding,) = (grid.cells(part, 8, ["groups"]) for part in ("language", "folding"))
    assert language.recipe.kinds["linear_weight"] == Uniform(4, granularity="group", group_size=8)
    assert language.recipe.kinds["norm_input"].bits == 16
    assert language.recipe.steps == [SmoothQuant(alpha=0.6)]
    assert folding.recipe.steps == [SmoothQuant(alpha=0.7)]


def test_what_this_version_does_not_have_is_named(grid: MethodGrid):
    (cell,) = grid.cells("language", 8, ["later"])
    assert cell.recipe is None
    assert cell.missing == "format 'someday', step 'tomorrow'"


def test_methods_and_settings_are_chosen_in_the_order_of_the_grid(grid: MethodGrid):
    cells = grid.cells("language", 8, ["groups", "plain"], ["W3", "W4A8"])
    assert [(c.method, c.setting) for c in cells] == [("plain", "W4A8"), ("plain", "W3"), ("groups", "W4A8")]
    with pytest.raises(ProtquantError, match=r"unknown method 'group'.*groups"):
        grid.cells("language", 8, ["group"])
    with pytest.raises(ProtquantError, match="unknown setting 'W9'"):
        grid.cells("language", 8, None, ["W9"])


def test_recipes_are_written_as_quant_takes_them(grid: MethodGrid, tmp_path: Path):
    cells = grid.cells("folding", 8)
    written = write_recipes(cells, tmp_path / "recipes")
    recipes = [cell.recipe for cell in cells if cell.recipe is not None]
    assert [load_recipe(path) for path in written] == recipes
    assert written[0] == tmp_path / "recipes" / "folding" / "w4a8-plain.yaml"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("methods:", "method:", "method: Unexpected keyword argument"),
        ("activation_bits: 8}", "bits: 8}", r"settings\.W4A8\.bits"),
        ("{weight_bits: 4, activation_bits: 8}", "W4A8", r"settings\.W4A8: Input should be an object"),
        ("{weight_bits: 3}", "{weight_bits: three}", r"settings\.W3\.weight_bits: .* valid integer"),
        ("settings: [W4A8]", "settings: [W5A8]", r"method groups: unknown setting 'W5A8'"),
        ("    steps: [{step: smoothquant, alpha: 0.6}]", "    stepz: []", r"methods\.1\.stepz"),
        ("parts: [folding]", "parts: [fold]", r"methods\.2\.parts\.0: .* 'language' or 'folding'"),
        ("parts: [folding]", "parts: [language]", "method groups has two entries for W4A8, language"),
        ('"${weight_bits}"', '"\\x24{oc.env:HOME}"', r"\$\{oc\.env:HOME\} is none of"),
        ('bits: "${weight_bits}"', 'bits: "${W}"', r"\$\{W\} is none of \$\{weight_bits\}"),
        ("common:", "common: [", "not YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, message: str):
    path = tmp_path / "grid.yaml"
    path.write_text(GRID.replace(old, new))
    with pytest.raises(ProtquantError, match=message):
        load_method_grid(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("linear_input:", "linear_imput:", "method plain at W4A8: .*linear_imput"),
        ("bits: 16,", "bits: '${weight_bits}',", "method plain at A6: .*'weight_bits' not found: the setting does not"),
    ],
)
def test_mistakes_of_a_cell_are_named(tmp_path: Path, old: str, new: str, message: str):
    path = tmp_path / "grid.yaml"
    path.write_text(GRID.replace(old, new))
    with pytest.raises(ProtquantError, match=message):
        load_method_grid(path).cells("language", 8)


def test_a_setting_of_a_step_that_is_wrong_is_named_with_its_method(tmp_path: Path):
    path = tmp_path / "grid.yaml"
    path.write_text(GRID.replace("alpha: 0.6", "alpha: 6"))
    with pytest.raises(ProtquantError, match=r"method groups at W4A8: .*alpha 6"):
        load_method_grid(path).cells("language", 8)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ProtquantError, match=r"none\.yaml cannot be read"):
        load_method_grid(tmp_path / "none.yaml")


def test_groups_divide_every_row(esmfold_checkpoint: Path, esm2_checkpoint: Path):
    assert group_size(load(esmfold_checkpoint)) == 16
    assert group_size(load(esm2_checkpoint)) == 32


@pytest.mark.parametrize("part", ["language", "folding"])
def test_every_shipped_cell_is_a_recipe_of_known_parts(part, esmfold_checkpoint, esm2_checkpoint, tmp_path: Path):
    model = load(esm2_checkpoint if part == "language" else esmfold_checkpoint)
    cells = load_method_grid().cells(part, group_size(model))
    assert [cell.missing for cell in cells if cell.recipe is None] == []
    for cell in cells:
        bits = load_method_grid().settings[cell.setting]
        kinds = {assignment.site.kind for assignment in plan(model, cell.recipe) if assignment.format is not None}
        assert any(kind in WEIGHT_KINDS for kind in kinds) == ("weight_bits" in bits)
        assert any(kind not in WEIGHT_KINDS for kind in kinds) == ("activation_bits" in bits)
    recipes = [yaml.safe_dump({**cell.recipe.to_dict(), "name": "", "description": ""}) for cell in cells]
    assert len(set(recipes)) == len(recipes)  # no two rows are the same under two names


def test_the_methods_of_the_papers_are_all_there():
    named = {"rtn", "smoothquant", "aqas", "aqas-dint", "awq", "gptq", "flattenquant", "qllm", "mobilequant"}
    assert named | {"rotation", "pwlq", "aaq", "best"} <= set(load_method_grid().methods)


@pytest.mark.parametrize("name", ["/tmp/x", "../x", "a b", "-x"])
def test_names_that_are_no_names_of_files_are_refused(tmp_path: Path, name: str):
    (tmp_path / "grid.yaml").write_text(f"settings: {{'{name}': {{weight_bits: 4}}}}\nmethods: [{{name: rtn}}]\n")
    with pytest.raises(ProtquantError, match=r"grid\.yaml: '.*' is no name of a method or setting"):
        load_method_grid(tmp_path / "grid.yaml")
