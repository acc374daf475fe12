"""What a run writes, and what becomes of records and settings that cannot be used."""

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from biotite.structure.io.pdb import PDBFile
from biotite.structure.io.pdbx import CIFFile, get_structure

from protquant.errors import ProtquantError
from protquant.models import ESMFold
from protquant.models.complexes import encode_complexes
from protquant.predicting import FoldRun, fold_fasta
from protquant.running.memory import budget

Fold = Callable[..., FoldRun]


@pytest.fixture
def fold_text(esmfold_checkpoint: Path, tmp_path: Path) -> Fold:
    """Fold a FASTA file of this text into `out`."""

    def run(text: str, **settings) -> FoldRun:
        fasta = tmp_path / "in.fasta"
        fasta.write_text(text)
        return fold_fasta(fasta, tmp_path / "out", str(esmfold_checkpoint), **({"plots": False} | settings))

    return run


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_target_gets_its_files_and_a_row(fold_text, tmp_path: Path):
    run = fold_text(">sp|P1|ONE first, of two\nMKTAYIAKQR\n>two\nGAVLIDE\n", plots=True)
    stems = ["sp_P1_ONE", "two"]
    suffixes = (".cif", ".pdb", ".png", "_pae.json")
    expected = {stem + suffix for stem in stems for suffix in suffixes} | {"manifest.jsonl", "predictions.csv"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    rows = table(tmp_path / "out" / "predictions.csv")
    assert [row["name"] for row in rows] == stems
    assert rows[0]["header"] == "sp|P1|ONE first, of two"
    assert [row["length"] for row in rows] == ["10", "7"]  # as in the file, though the shorter is folded first
    assert run.failures == []


def test_b_factors_are_plddt_from_0_to_100_in_both_formats(fold_text, tmp_path: Path):
    run = fold_text(">a\nMKTAYIAKQR\n")
    atoms = PDBFile.read(tmp_path / "out" / "a.pdb").get_structure(model=1, extra_fields=["b_factor"])
    in_cif = get_structure(CIFFile.read(tmp_path / "out" / "a.cif"), model=1, extra_fields=["b_factor"])
    ca = atoms.b_factor[atoms.atom_name == "CA"]
    assert ca.max() > 1
    assert 0 <= ca.min() <= ca.max() <= 100
    assert ca.mean() == pytest.approx(run.rows[0]["mean_plddt"], abs=0.01)
    np.testing.assert_allclose(atoms.b_factor, in_cif.b_factor, atol=0.01)
    np.testing.assert_allclose(atoms.coord, in_cif.coord, atol=2e-3)


def test_the_aligned_error_is_laid_out_as_in_alphafold_db(fold_text, tmp_path: Path):
    fold_text(">a\nMKTAYIAKQR\n")
    (document,) = json.loads((tmp_path / "out" / "a_pae.json").read_text())
    of_the_database = {"predicted_aligned_error", "max_predicted_aligned_error"}
    assert set(document) == of_the_database | {"token_chain_ids", "token_res_ids", "ptm"}
    errors = np.array(document["predicted_aligned_error"])
    assert errors.shape == (10, 10)
    assert errors.dtype.kind == "i"
    assert 0 <= errors.min() <= errors.max() <= document["max_predicted_aligned_error"] == 31.75


def test_interface_scores_are_in_the_table_of_complexes_and_the_cell_of_a_single_chain_is_empty(fold_text, tmp_path):
    run = fold_text(">pair\nMKTAYIAKQR:GAVLIDE\n>one\nMKTAYIAKQR\n", num_recycles=0)
    pair, one = table(tmp_path / "out" / "predictions.csv")
    assert one["iptm"] == ""
    assert 0 < float(pair["iptm"]) < 1
    assert run.rows[0]["iptm"] == pytest.approx(float(pair["iptm"]))
    (document,) = json.loads((tmp_path / "out" / "pair_pae.json").read_text())
    assert document["iptm"] == document["chain_pair_iptm"][0][1] == pytest.approx(float(pair["iptm"]), abs=1e-4)
    assert document["token_chain_ids"] == ["A"] * 10 + ["B"] * 7
    (document,) = json.loads((tmp_path / "out" / "one_pae.json").read_text())
    assert "iptm" not in document


def test_the_aligned_error_is_in_the_mmcif_of_targets_that_are_short_enough(fold_text, tmp_path: Path, capsys):
    fold_text(">short\nMKTAYIA\n>long\nMKTAYIAKQR\n", pae_in_cif=7, num_recycles=0)
    assert (
        "error of 1 of the 2 targets to be done is in the _pae.json file only: they have more"
        in capsys.readouterr().err
    )
    short, long = (CIFFile.read(tmp_path / "out" / f"{name}.cif").block for name in ("short", "long"))
    values = short["ma_qa_metric_local_pairwise"]["metric_value"].as_array(float).reshape(7, 7)
    (document,) = json.loads((tmp_path / "out" / "short_pae.json").read_text())
    np.testing.assert_allclose(values, document["predicted_aligned_error"], atol=0.51)
    assert "ma_qa_metric_local_pairwise" not in long
    assert long["ma_entry_associated_files"]["file_url"].as_item() == "long_pae.json"


def test_b_factors_are_expected_errors_on_request_and_the_table_stays(fold_text, tmp_path: Path):
    text = ">a\nMKTAYIAKQR\n"
    usual = fold_text(text, num_recycles=0)
    plddt = PDBFile.read(tmp_path / "out" / "a.pdb").get_structure(model=1, extra_fields=["b_factor"]).b_factor
    changed = fold_text(text, num_recycles=0, b_factor="error")
    assert changed.skipped == []
    assert changed.rows == usual.rows
    expected = np.minimum(8 * np.pi**2 / 3 * (1.5 * np.exp(4 * (0.7 - plddt / 100))) ** 2, 999.99)
    for atoms in (
        PDBFile.read(tmp_path / "out" / "a.pdb").get_structure(model=1, extra_fields=["b_factor"]),
        get_structure(CIFFile.read(tmp_path / "out" / "a.cif"), model=1, extra_fields=["b_factor"]),
    ):
        np.testing.assert_allclose(atoms.b_factor, expected, rtol=1e-3, atol=0.01)
    assert "B-factors: 8 pi^2/3 x (expected error" in (tmp_path / "out" / "a.pdb").read_text()


def test_a_complex_is_written_as_chains_numbered_from_one(fold_text, tmp_path: Path):
    fold_text(">pair\nMKTAYIAKQR:GAVLIDE\n")
    for atoms in (
        PDBFile.read(tmp_path / "out" / "pair.pdb").get_structure(model=1),
        get_structure(CIFFile.read(tmp_path / "out" / "pair.cif"), model=1),
    ):
        ca = atoms[atoms.atom_name == "CA"]
        assert list(zip(ca.chain_id.tolist(), ca.res_id.tolist(), strict=True)) == [
            *(("A", number) for number in range(1, 11)),
            *(("B", number) for number in range(1, 8)),
        ]


BAD_RECORDS = """>good one
MKTAYIAKQR
>inner
MKT*AYI
>gap
MK-TAY
>digits
MKT
A1Y
>lower
mktayiakqr
>rare
MUOBZXJK
>../../etc/passwd of a host
GAVLIGAVLI
>nothing
>good again
MKTAYIAKQR
"""


def test_records_that_cannot_be_folded_are_named_and_the_others_are_folded(fold_text, tmp_path: Path, capsys):
    run = fold_text(BAD_RECORDS)
    assert [row["name"] for row in run.rows] == ["good", "lower", "rare", "etc_passwd", "good_2"]
    assert [row["header"] for row in run.rows][3:] == ["../../etc/passwd of a host", "good again"]
    substituted = {row["name"]: row["substitutions"] for row in run.rows}
    assert substituted["lower"] == "lower case -> upper case"
    assert substituted["rare"] == "1 x U -> C; 1 x O -> K; 1 x B -> D; 1 x Z -> E; 1 x J -> L"
    failures = table(tmp_path / "out" / "failures.csv")
    expected = {"inner": "stop codon", "gap": "gap", "digits": "(line 9)", "nothing": "the sequence is empty"}
    assert {row["header"]: row["line"] for row in failures} == {
        "inner": "3",
        "gap": "5",
        "digits": "7",
        "nothing": "16",
    }
    shown = capsys.readouterr()
    assert shown.out == ""
    for row in failures:
        assert expected[row["header"]] in row["error"]
        assert f"in.fasta, line {row['line']}: '{row['header']}': {row['error']}" in shown.err
    assert {path.name for path in tmp_path.iterdir()} == {"in.fasta", "out"}


def test_a_file_with_no_usable_record_folds_nothing_and_names_each(fold_text, tmp_path: Path):
    run = fold_text(">a\nM-K\n>b\n")
    assert run.rows == []
    assert [row["header"] for row in table(tmp_path / "out" / "failures.csv")] == ["a", "b"]


def test_failures_of_an_earlier_run_are_forgotten_when_they_are_mended(fold_text, tmp_path: Path):
    fold_text(">a\nM-K\n>b\nMKT\n")
    assert fold_text(">a\nMK\n>b\nMKT\n").failures == []
    assert not (tmp_path / "out" / "failures.csv").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_recycles": -1}, "recycles is -1"),
        ({"chunk_size": 0}, "chunk size is 0"),
        ({"b_factor": "lddt"}, "--b-factor lddt: not known; choose plddt or error"),
        ({"pae_in_cif": -1}, "--pae-in-cif -1: give 0 or more residues"),
        ({"dtype": "int8"}, "unknown dtype 'int8'; choose one of float32"),
        ({"quant": "w8a8-pwlqq"}, "did you mean w8a8-pwlq"),
        ({"quant": "missing.yaml"}, "missing.yaml does not exist"),
        ({"calibration": Path("missing.fasta")}, "missing.fasta: there is no such file"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_anything_is_made(fold_text, tmp_path, settings, message):
    with pytest.raises(ProtquantError, match=message):
        fold_text(">a\nMKT\n", **settings)
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file_is_named_and_left_as_it_was(esmfold_checkpoint, tmp_path: Path):
    (tmp_path / "in.fasta").write_text(">a\nMKT\n")
    (tmp_path / "out").write_text("mine")
    for output in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(ProtquantError, match=re.escape(f"{output}: the output folder cannot be created")):
            fold_fasta(tmp_path / "in.fasta", output, str(esmfold_checkpoint))
    assert (tmp_path / "out").read_text() == "mine"


def test_a_language_model_is_told_to_predict_contacts(esm2_checkpoint, tmp_path: Path):
    (tmp_path / "in.fasta").write_text(">a\nMKT\n")
    with pytest.raises(ProtquantError, match="is a language model and cannot fold; see `protquant contacts`"):
        fold_fasta(tmp_path / "in.fasta", tmp_path / "out", str(esm2_checkpoint))


def overflow_in(monkeypatch: pytest.MonkeyPatch, sequence: str) -> None:
    """Let the language model overflow at one sequence, whatever batch it is in."""
    forward, poisoned = ESMFold.language_model_hidden, encode_complexes([sequence]).aatype[0]

    def overflowing(self, batch, mask):
        hidden = forward(self, batch, mask)
        for row, (aatype, valid) in enumerate(zip(batch, mask, strict=True)):
            if not valid.is_meta and torch.equal(aatype[valid], poisoned):
                hidden[row] = torch.inf
        return hidden

    monkeypatch.setattr(ESMFold, "language_model_hidden", overflowing)


def test_a_record_that_overflows_does_not_take_its_batch_along(fold_text, tmp_path: Path, monkeypatch):
    overflow_in(monkeypatch, "GAVLI")
    run = fold_text(">a\nMKTAY\n>b\nGAVLI\n>c\nRNDCQ\n", dtype="bfloat16")
    assert [row["name"] for row in run.rows] == ["a", "c"]
    (failure,) = table(tmp_path / "out" / "failures.csv")
    assert (failure["name"], failure["line"]) == ("b", "3")
    assert failure["error"] == (
        "b: after the first pass, before any recycle, the single representation is not finite; fold it with --dtype"
        " float32"
    )
    assert not (tmp_path / "out" / "b.pdb").exists()


def test_an_aligned_error_that_overflows_is_a_failure(fold_text, monkeypatch):
    forward = ESMFold.forward

    def overflowing(self, *args, **settings):
        output = forward(self, *args, **settings)
        output.pae_logits[:] = torch.nan
        return output

    monkeypatch.setattr(ESMFold, "forward", overflowing)
    assert "aligned error is not finite" in fold_text(">a\nMKTAY\n").failures[0]["error"]


def test_geometry_and_its_warnings_are_in_the_row_the_document_and_the_notes(fold_text, tmp_path: Path, capsys):
    run = fold_text(">a\nMKTAYIAKQR\n")  # by weights drawn at random, whose chains are torn
    (row,) = table(tmp_path / "out" / "predictions.csv")
    (told,) = run.to_dict()["predictions"]
    for column in ("ca_outliers", "cis_prolines", "clashes"):
        assert float(row[column]) == pytest.approx(told[column])
    assert told["ca_outliers"] > 0.5
    assert row["warnings"] == told["warnings"]
    assert "distorted backbone" in row["warnings"]
    assert f"a: WARNING: {row['warnings']}" in capsys.readouterr().err


def test_a_record_too_long_for_the_memory_does_not_take_the_others_along(fold_text, monkeypatch, esmfold):
    enough_for_40 = budget.MemoryBudget.of(esmfold).at(40, chunk_size=1).activations
    monkeypatch.setattr(budget.MemoryBudget, "available", property(lambda _: enough_for_40))
    run = fold_text(f">short\nMKTAY\n>long\n{'MKTAY' * 20}\n>fits\n{'MKTAY' * 8}\n")
    assert [row["name"] for row in run.rows] == ["short", "fits"]
    (failure,) = run.failures
    assert failure["name"] == "long"
    assert "1 x 100 residues would need" in failure["error"]
    assert "a single sequence of 40 residues would fit" in failure["error"]


def test_a_target_whose_file_cannot_be_written_does_not_take_the_others_along(fold_text, tmp_path: Path):
    (tmp_path / "out" / "a.pdb").mkdir(parents=True)
    run = fold_text(">a\nMKTAY\n>b\nGAVLI\n")
    assert [row["name"] for row in run.rows] == ["b"]
    assert "a.pdb: the file cannot be written" in run.failures[0]["error"]


def test_a_structure_too_wide_for_the_pdb_format_is_written_as_mmcif(fold_text, tmp_path: Path, monkeypatch, capsys):
    forward = ESMFold.forward

    def far_away(self, *args, **settings):
        output = forward(self, *args, **settings)
        output.positions += 20_000
        return output

    monkeypatch.setattr(ESMFold, "forward", far_away)
    assert fold_text(">a\nMKTAY\n").failures == []
    assert (tmp_path / "out" / "a.cif").exists()
    assert not (tmp_path / "out" / "a.pdb").exists()
    assert "a: no .pdb is written" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_folds_every_record(fold_text, dtype: str):
    run = fold_text(">a\nMKTAYIAKQR\n>b\nGAVLIDE\n>c\nMKT:GAV\n", dtype=dtype)
    assert [(row["name"], row["dtype"]) for row in run.rows] == [("a", dtype), ("b", dtype), ("c", dtype)]


@pytest.mark.parametrize("quant", ["w8", "w8a8-uniform"])
def test_quantized_folding_says_so_in_its_row(fold_text, calibration_file, quant: str):
    run = fold_text(">a\nMKTAYIAKQR\n", quant=quant, calibration=calibration_file)
    assert (run.rows[0]["recipe"], run.rows[0]["execution"]) == (quant, "simulated")


def test_what_cannot_fit_is_refused_before_anything_is_loaded(fold_text, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(sys.modules[fold_fasta.__module__], "load", lambda *_, **__: pytest.fail("was loaded"))
    with pytest.raises(ProtquantError, match=r"takes .* once it is loaded, but 2 MiB are available"):
        fold_text(">a\nMKTAYIAKQR\n", max_memory="2MiB")
    run = fold_text(f">a\n{'MKTAYIAKQR' * 1000}\n", max_memory="4GiB")
    assert "a single sequence of" in run.failures[0]["error"]
    assert table(tmp_path / "out" / "failures.csv")[0]["name"] == "a"


def test_a_limit_of_memory_is_kept_by_what_is_folded(fold_text, monkeypatch):
    free: list[int] = []
    plan = budget.MemoryBudget.plan
    monkeypatch.setattr(
        budget.MemoryBudget,
        "plan",
        lambda self, *args: free.append(self.resident + self.available) or plan(self, *args),
    )
    fold_text(">a\nMKTAYIAKQR\n", max_memory="4GiB")
    assert set(free) == {4 * 2**30}


@pytest.mark.parametrize("amount", ["12", "lots", "-1GiB"])
def test_an_amount_of_memory_without_sense_is_refused(fold_text, amount: str):
    with pytest.raises(ProtquantError, match="12GiB"):
        fold_text(">a\nMKTAYIAKQR\n", max_memory=amount)
