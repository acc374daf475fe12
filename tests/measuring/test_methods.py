import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from protquant.errors import ProtquantError
from protquant.measuring import evaluate
from protquant.measuring import grid as grid_module
from protquant.measuring.grid import ScoredModel
from protquant.measuring.method_report import method_figure, methods_markdown, setting_tables
from protquant.measuring.methods import SCORES, MethodTable, compare_methods
from protquant.measuring.tasks import ContactTask

GRID = """
notes: ["One rule | for all."]
settings: {W8A8: {weight_bits: 8, activation_bits: 8}, W4: {weight_bits: 4}}
common:
  calibration: {range: minmax}
  kinds:
    linear_weight: {format: uniform, bits: "${weight_bits}", symmetric: false, granularity: channel}
    linear_input: {format: uniform, bits: "${activation_bits}", symmetric: false}
methods:
  - {name: rtn, title: Round to nearest}
  - {name: smooth, title: Smooth, settings: [W8A8], steps: [{step: smoothquant}]}
  - {name: later, title: Later, settings: [W4], steps: [{step: tomorrow}]}
"""


@pytest.fixture(scope="module")
def given(
    esmfold_checkpoint: Path,
    esm2_checkpoint: Path,
    structures_folder: Path,
    calibration_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("grid")
    (folder / "grid.yaml").write_text(GRID)
    (folder / "heldout.fasta").write_text(">a\nMKTAYIAKQRQISFVKSHF\n")
    return {
        "lm": str(esm2_checkpoint),
        "model": str(esmfold_checkpoint),
        "grid": folder / "grid.yaml",
        "heldout": folder / "heldout.fasta",
        "structures": structures_folder,
        "calibration": calibration_file,
    }


@pytest.fixture(scope="module")
def table(given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> MethodTable:
    return compare_methods(**given, output=tmp_path_factory.mktemp("table") / "methods.csv")


def cells(rows: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    return [(row["part"], row["method"], row["setting"], row["status"]) for row in rows]


def test_there_is_a_row_for_every_cell_and_the_float_model_first(table: MethodTable):
    assert cells(table.rows) == [
        (part, *cell)
        for part in ("language", "folding")
        for cell in (
            ("float", "float", "done"),
            ("rtn", "W8A8", "done"),
            ("rtn", "W4", "done"),
            ("smooth", "W8A8", "done"),
            ("later", "W4", "not available"),
        )
    ]
    for row in table.rows:
        if row["status"] == "done":
            assert all(math.isfinite(row[score]) for score in SCORES[row["part"]])
    assert [row["error"] for row in table.failures] == ["not in this version: step 'tomorrow'"] * 2


def test_cells_have_the_scores_that_evaluate_gives(table: MethodTable, given: dict[str, Any]):
    recipe = table.grid.cells("language", 32, ["rtn"], ["W4"])[0].recipe
    common = {"calibration": given["calibration"]}
    contacts = evaluate([given["lm"]], [recipe], "contacts", structures=given["structures"], **common)
    language = evaluate([given["lm"]], [recipe], "language", heldout=given["heldout"], **common)
    folds = evaluate([given["model"]], [recipe], "structure", structures=given["structures"], **common)
    for part, expected in (("language", contacts), ("language", language), ("folding", folds)):
        rows = [row for row in table.rows if row["part"] == part]
        for record, method in zip(expected.records, ("float", "rtn"), strict=True):
            row = next(row for row in rows if row["method"] == method and row["setting"] in ("float", "W4"))
            for name in set(SCORES[part]) & set(record):
                assert row[name] == pytest.approx(record[name], abs=1e-9), name
            assert row["weight_bits"] == record["weight_bits"]


def test_finished_cells_are_not_measured_again(given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    output = tmp_path / "methods.csv"
    measured = []
    measure = ScoredModel.measure

    def stop_at_the_third(self, recipe, *args, **settings):
        measured.append((self.tasks[-1].name, recipe.name))
        if len(measured) == 3:
            raise KeyboardInterrupt
        return measure(self, recipe, *args, **settings)

    monkeypatch.setattr(ScoredModel, "measure", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        compare_methods(**given, methods=["rtn"], output=output)
    assert pd.read_csv(output)[["method", "setting"]].values.tolist() == [["float", "float"], ["rtn", "W8A8"]]
    resumed = compare_methods(**given, methods=["rtn"], output=output)
    names = [("language", "w4-rtn"), ("structure", "float"), ("structure", "w8a8-rtn"), ("structure", "w4-rtn")]
    assert measured[3:] == names
    looked_up = compare_methods(**given, methods=["rtn", "smooth"], output=output, measure=False)
    assert len(measured) == 7
    assert [cell for cell in cells(looked_up.rows) if cell[1] != "smooth"] == cells(resumed.rows)
    left = [(row["part"], row["method"], row["status"]) for row in looked_up.failures]
    assert left == [("language", "smooth", "not measured"), ("folding", "smooth", "not measured")]
    whole = compare_methods(**given, methods=["rtn"])
    assert cells(resumed.rows) == cells(whole.rows)
    for row, expected in zip(resumed.rows, whole.rows, strict=True):
        for name in SCORES[row["part"]]:
            assert row[name] == pytest.approx(expected[name], abs=1e-9)
    del measured[:]
    assert cells(compare_methods(**given, methods=["rtn"], output=output).rows) == cells(whole.rows)
    assert measured == []


@pytest.mark.parametrize("change", [{"seed": 1}, {"limit": 1}, {"mask_every": 4}])
def test_other_settings_are_other_cells_and_the_old_ones_stay(given, tmp_path: Path, change: dict[str, Any]):
    output = tmp_path / "methods.csv"
    common = {**given, "model": None, "methods": ["rtn"], "settings": ["W4"], "output": output}
    compare_methods(**common)
    table = compare_methods(**{**common, **change})
    assert len(table.rows) == 2
    assert len(pd.read_csv(output)) == 4


def test_a_cell_that_breaks_is_a_row_and_the_others_go_on(given, tmp_path, monkeypatch, capsys):
    def quantize(model, recipe, *args, **settings):
        if recipe.name == "w8a8-rtn":
            raise RuntimeError("shapes do not\nmatch")
        return whole(model, recipe, *args, **settings)

    whole = grid_module.quantize
    common = {**given, "model": None, "methods": ["rtn"], "output": tmp_path / "methods.csv"}
    with monkeypatch.context() as patched:
        patched.setattr(grid_module, "quantize", quantize)
        table = compare_methods(**common)
    assert [row["status"] for row in table.rows] == ["done", "failed", "done"]
    assert table.failures[0]["error"] == "RuntimeError: shapes do not match"
    assert "rtn W8A8: RuntimeError" in capsys.readouterr().err
    assert "rtn at W8A8 (language), failed: RuntimeError: shapes do not match" in methods_markdown(table, "protquant")
    again = compare_methods(**common)  # a failure is tried again
    assert [row["status"] for row in again.rows] == ["done"] * 3


def test_targets_that_fail_make_a_cell_partial(given, monkeypatch: pytest.MonkeyPatch):
    def predict(model, sequence, **options):
        calls.append(sequence)
        if len(calls) == 3:  # the first of the first cell, behind two of the float model
            raise ProtquantError("not finite")
        return whole(model, sequence, **options)

    calls: list[str] = []
    tasks = ContactTask.score.__globals__
    whole = tasks["predict_contacts"]
    monkeypatch.setitem(tasks, "predict_contacts", predict)
    table = compare_methods(**{**given, "model": None}, methods=["rtn"], settings=["W4"])
    row = table.rows[1]
    assert (row["status"], row["targets"]) == ("partial", 1)
    assert row["error"] == "1 targets failed, one first: not finite"
    assert "| Round to nearest * |" in methods_markdown(table, "protquant")


def test_the_page_is_well_formed_and_says_how_it_was_made(table: MethodTable):
    page = methods_markdown(table, "protquant methods --lm small")
    assert "```sh\nprotquant methods --lm small\n```" in page
    assert "- One rule \\| for all." in page
    assert "seed 0" in page and "torch " in page
    assert page.count("\n## ") == 3  # two settings, and what is not complete
    lines = page.split("\n")
    for i, line in enumerate(lines):
        if line.startswith("| --- |"):
            columns = line.count("|") - 1
            assert lines[i - 1].startswith("| method | long P@L | contact drift | masked acc. |")
            assert columns == 1 + 5 + 2 + 4 + 2
            body = lines[i - 1 : next(j for j in range(i, len(lines)) if not lines[j].startswith("|"))]
            assert all(row.count("|") - 1 == columns for row in body)
            assert body[2].startswith("| float |")
    assert "later at W4 (folding), not available: not in this version: step 'tomorrow'" in page


def test_settings_have_the_rows_of_their_methods(table: MethodTable):
    tables = setting_tables(table)
    assert {setting: [row["method"] for row in rows] for setting, rows in tables.items()} == {
        "W8A8": ["float", "Round to nearest", "Smooth"],
        "W4": ["float", "Round to nearest", "Later"],
    }
    assert tables["W4"][2]["KL"] == "not available"
    assert tables["W4"][0]["KL"] == "0.0000"


def test_the_picture_has_a_point_for_every_method_that_can_be_compared(table: MethodTable):
    figure = method_figure(table)
    figure.draw_without_rendering()
    # Two scores of each part; at W4 one method alone was measured.
    assert len(figure.axes) == 4
    for axis in figure.axes:
        assert axis.get_title().endswith("W8A8")
        assert [len(points.get_offsets()) for points in axis.collections] == [2]
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown == ["Round to nearest", "Smooth"]


def test_what_cannot_be_compared_is_refused(given: dict[str, Any]):
    with pytest.raises(ProtquantError, match="nothing to compare"):
        compare_methods(None, None)
    with pytest.raises(ProtquantError, match="is a language model and cannot fold"):
        compare_methods(**{**given, "lm": None, "model": given["lm"]})
