import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from protquant.checkpoints import load
from protquant.errors import ProtquantError
from protquant.models import ESM2, ESMFold
from protquant.predicting import contacts_fasta, predict_contacts

SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQ"


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "in.fasta"
    path.write_text(f">a first\n{SEQUENCE}\n>pair\nMKT:AYI\n>gap\nM-K\n>b\nmktayiakqrqis\n")
    return path


def test_of_a_folding_model_the_language_model_is_asked(esmfold: ESMFold, esm2_checkpoint: Path):
    language_model = load(esm2_checkpoint)
    assert isinstance(language_model, ESM2)
    contacts = predict_contacts(esmfold, SEQUENCE)
    assert contacts.shape == (22, 22)
    np.testing.assert_allclose(contacts, contacts.T, atol=1e-6)
    np.testing.assert_allclose(contacts, predict_contacts(language_model, SEQUENCE), atol=1e-6)


def test_each_target_gets_a_map_and_its_most_probable_pairs(fasta: Path, esm2_checkpoint: Path, tmp_path: Path):
    document = contacts_fasta(fasta, tmp_path / "out", str(esm2_checkpoint), top=0.5)
    assert [row["header"] for row in document["targets"]] == ["a first", "b"]
    names = {"a_contacts.npy", "a_contacts.png", "b_contacts.npy", "b_contacts.png"}
    tables = {"contacts.csv", "targets.csv", "failures.csv", "manifest.contacts.jsonl"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | tables
    assert pd.read_csv(tmp_path / "out" / "targets.csv").header.tolist() == ["a first", "b"]
    assert pd.read_csv(tmp_path / "out" / "failures.csv").header.tolist() == ["gap", "pair"]
    saved = np.load(tmp_path / "out" / "a_contacts.npy")
    assert saved.dtype == np.float32
    pairs = pd.read_csv(tmp_path / "out" / "contacts.csv").query("name == 'a'")
    assert len(pairs) == 11
    assert (pairs.j - pairs.i).min() >= 6
    assert pairs.probability.is_monotonic_decreasing
    np.testing.assert_allclose(pairs.probability, saved[pairs.i - 1, pairs.j - 1], atol=1e-4)
    assert pairs.probability.iloc[0] == pytest.approx(saved[np.triu_indices(22, 6)].max(), abs=1e-4)


def test_a_complex_and_a_faulty_record_are_named_and_the_others_done(fasta: Path, esm2_checkpoint, tmp_path, capsys):
    document = contacts_fasta(fasta, tmp_path / "out", str(esm2_checkpoint), plots=False)
    assert {row["header"]: row["line"] for row in document["failures"]} == {"gap": 5, "pair": 3}
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "in.fasta, line 3: 'pair': contacts are predicted for single chains" in shown.err
    assert document["targets"][1]["substitutions"] == "lower case -> upper case"


def test_probabilities_that_are_not_finite_are_an_error(esm2_checkpoint: Path):
    model = load(esm2_checkpoint)
    model.contact_head.regression.bias.data.fill_(torch.nan)
    with pytest.raises(ProtquantError, match="not finite; predict them with --dtype float32"):
        predict_contacts(model, SEQUENCE)


def test_running_out_of_memory_is_an_error_of_the_record(esmfold: ESMFold, monkeypatch):
    def out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ESM2, "contacts", out_of_memory)
    with pytest.raises(ProtquantError, match="22 residues ran out of memory"):
        predict_contacts(esmfold, SEQUENCE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"top": -1.0}, "give 0 or more"), ({"quant": "w7"}, "no recipe 'w7'"), ({"dtype": "f8"}, "unknown dtype")],
)
def test_settings_that_cannot_be_used_are_refused(fasta: Path, esm2_checkpoint: Path, tmp_path, settings, message):
    with pytest.raises(ProtquantError, match=message):
        contacts_fasta(fasta, tmp_path / "out", str(esm2_checkpoint), **settings)


def test_half_precision_predicts_nearly_the_same(esm2_checkpoint: Path):
    exact = predict_contacts(load(esm2_checkpoint), SEQUENCE)
    assert np.abs(predict_contacts(load(esm2_checkpoint, dtype=torch.bfloat16), SEQUENCE) - exact).max() < 0.1


def test_a_repeated_run_skips_what_is_done_and_gives_the_same_tables(
    fasta: Path, esm2_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []

    def remembering(model: ESM2, sequence: str, **settings: bool) -> np.ndarray:
        asked.append(sequence)
        return predict_contacts(model, sequence, **settings)

    monkeypatch.setattr(importlib.import_module("protquant.predicting.contacts"), "predict_contacts", remembering)
    first = contacts_fasta(fasta, tmp_path / "out", str(esm2_checkpoint), plots=False)
    tables = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.csv")}
    asked.clear()
    again = contacts_fasta(fasta, tmp_path / "out", str(esm2_checkpoint), plots=False)
    assert asked == ["MKT:AYI"]  # which failed
    assert again["targets"] == first["targets"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.csv")} == tables
    (tmp_path / "out" / "a_contacts.npy").write_bytes(b"cut")
    asked.clear()
    contacts_fasta(fasta, tmp_path / "out", str(esm2_checkpoint), plots=False)
    assert SEQUENCE in asked
    asked.clear()
    contacts_fasta(fasta, tmp_path / "out", str(esm2_checkpoint), plots=False, top=0.5)
    assert len(asked) == 3
