"""A quantized model is prepared once, and loaded from the cache folder ever after."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from protquant.checkpoints import is_quantized, save_model
from protquant.errors import ProtquantError
from protquant.models import ESMFold
from protquant.preparing.prepared import delete_prepared, list_prepared, prepare
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
    assert prepare(folder, load_recipe("w8"), SEQUENCES, folding=False) is None
    monkeypatch.setenv("PROTQUANT_CACHE", "off")
    assert prepare(folder, load_recipe("w8"), SEQUENCES) is None


def test_a_second_process_waits_for_the_first_and_takes_what_it_made(folder: str, capsys: pytest.CaptureFixture[str]):
    recipe = load_recipe("w8a8-token")
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: prepare(folder, recipe, SEQUENCES), range(2))
    assert first == second
    told = capsys.readouterr().err
    assert told.count(f"preparing {folder} by w8a8-token, once:") == 1
    assert told.count("another process is preparing") == 1


def test_too_little_memory_is_said_before_it_begins(folder: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ProtquantError, match=r"to prepare .* by w8 takes about .* and there are 1 MiB"):
        prepare(folder, load_recipe("w8"), SEQUENCES, max_memory=2**20)
    assert "blocks:" not in capsys.readouterr().err
    assert list_prepared() == []


def test_the_name_of_a_recipe_is_no_path(folder: str, tmp_path: Path):
    made = prepare(folder, replace(load_recipe("w8"), name="../" * 9 + "tmp/" + "x" * 300), SEQUENCES)
    assert made is not None
    assert made.parent == tmp_path / "cache" / "models"
