"""What is stored of recipes and formats is what is computed from them."""

import json

import pytest

from protquant.measuring import datasheets, format_table, list_formats, list_recipes

STALE = "run python -m protquant.measuring.make_datasheets"


def test_stored_rows_of_recipes_are_what_is_computed_of_their_files(monkeypatch: pytest.MonkeyPatch):
    stored = json.loads((datasheets.DATA / datasheets.RECIPES).read_text())
    rows = list_recipes()
    assert [entry["row"] for entry in stored.values()] == rows, STALE
    monkeypatch.setattr(datasheets, "text_fingerprint", lambda _text: "of another file")
    assert list_recipes() == rows, STALE


def test_a_recipe_that_was_changed_is_read_anew(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasheets, "recipe_text", lambda name: f"description: another {name}")
    monkeypatch.setattr(datasheets, "available_recipes", lambda: ["w8"])
    monkeypatch.setattr(datasheets, "describe_recipe", lambda name: {"recipe": name, "description": "read anew"})
    assert list_recipes() == [{"recipe": "w8", "description": "read anew"}]


@pytest.mark.slow
def test_stored_figures_of_formats_are_what_is_measured():
    stored, measured = list_formats(), format_table()
    assert [row["label"] for row in stored] == [row["label"] for row in measured], STALE
    for row, again in zip(stored, json.loads(json.dumps(measured)), strict=True):
        assert row.keys() == again.keys()
        for name, value in row.items():
            # Decibels differ in digits that are not printed, by the instruction set.
            expected = pytest.approx(again[name], abs=0.02) if name.startswith("snr") else again[name]
            assert value == expected, f"{row['label']}: {name}: {STALE}"


def test_formats_are_measured_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    rows = [{"format": "mine"}]
    monkeypatch.setattr(datasheets.measuring, "format_table", lambda: rows)
    assert list_formats(measure=True) is rows
    assert {row["format"] for row in list_formats()} >= {"uniform", "piecewise_linear"}
