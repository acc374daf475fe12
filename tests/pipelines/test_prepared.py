"""A quantized model is prepared once, and loaded from the cache folder ever after."""

from pathlib import Path

import pytest

from protquant.checkpoints import is_quantized, save_model
from protquant.models import ESM2, ESMFold
from protquant.pipelines.prepared import delete_prepared, list_prepared, prepare
from protquant.quant import load_recipe

SEQUENCES = ["GIVEQCCTSICSLYQLENYCN", "MKTAYIAKQR"]


@pytest.fixture
def folder(esmfold: ESMFold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PROTQUANT_CACHE", str(tmp_path / "cache"))
    return str(save_model(esmfold, tmp_path / "model"))


def test_it_is_announced_and_made_once(folder: str, capsys: pytest.CaptureFixture[str]):
    first = prepare(folder, load_recipe("w8a8-int8"), SEQUENCES)
    assert first is not None
    assert is_quantized(first)
    told = capsys.readouterr().err
    assert f"preparing {folder} by w8a8-int8, once:" in told
    assert "GB" in told
    assert "blocks: 5 of 5" in told
    made = (first / "scheme.json").stat().st_mtime_ns
    assert prepare(folder, load_recipe("w8a8-int8"), SEQUENCES) == first
    assert (first / "scheme.json").stat().st_mtime_ns == made
    assert capsys.readouterr().err == ""


def test_other_recipes_and_sequences_have_their_own(folder: str):
    prepared = {
        prepare(folder, load_recipe(recipe), sequences)
        for recipe, sequences in (("w8a8-int8", SEQUENCES), ("w8a8-int8", SEQUENCES[:1]), ("w8", SEQUENCES))
    }
    # Recipes that do not calibrate do not depend on sequences.
    assert prepare(folder, load_recipe("w8"), SEQUENCES[:1]) in prepared
    assert len(prepared) == 3
    assert {each.folder for each in list_prepared()} == prepared
    assert delete_prepared() > 0
    assert list_prepared() == []


def test_what_cannot_be_prepared_is_left_to_memory(folder: str, monkeypatch: pytest.MonkeyPatch):
    assert prepare(folder, load_recipe("w4a8-rotation"), SEQUENCES) is None
    assert prepare(folder, load_recipe("w8"), SEQUENCES, kind=ESM2) is None
    monkeypatch.setenv("PROTQUANT_CACHE", "off")
    assert prepare(folder, load_recipe("w8"), SEQUENCES) is None
