"""Layouts: each target gets the files that a program expects, by name and content."""

import csv
import importlib
import json
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import gemmi
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from protquant import load
from protquant.cli import app
from protquant.errors import ProtquantError
from protquant.models import ESMFold
from protquant.predicting import FoldRun, fold, fold_fasta, merge_shards
from protquant.predicting.fold_outputs import LAYOUTS, layout_of
from protquant.proteins import PDBLimitError, Prediction

SEQUENCES = {"one": "GPLGSQELRLRVQGKEKHQM", "pair": "MVTAFILMVT:AAGKEREVME"}
TEXT = "".join(f">{name} of a test\n{sequence}\n" for name, sequence in SEQUENCES.items())
TABLES = {"manifest.jsonl", "predictions.csv"}
IPTM = "pair_iptm.tsv"  # of a complex


def predicted(model: object) -> dict[str, Prediction]:
    """What a model says, by calls of its own, and not from files."""
    assert isinstance(model, ESMFold)
    return {name: fold(model, text, name=name, num_recycles=0, even_so=True) for name, text in SEQUENCES.items()}


def written(folder: Path, model: str, layout: str) -> Path:
    """The folder of one command."""
    (folder / "in.fasta").write_text(TEXT)
    words = ["fold", "-i", str(folder / "in.fasta"), "-o", str(folder / "out"), "-m", model, "--layout", layout]
    result = CliRunner().invoke(app, [*words, "--num-recycles", "0", "--even-so"])
    assert result.exit_code == 0, result.output
    return folder / "out"


@pytest.fixture(scope="module")
def by_demo() -> dict[str, Prediction]:
    return predicted(load("demo"))


@pytest.fixture(scope="module")
def nf_core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("nf-core"), "demo", "nf-core")


@pytest.fixture(scope="module")
def colabfold(tmp_path_factory: pytest.TempPathFactory, esmfold_checkpoint: Path) -> Path:
    return written(tmp_path_factory.mktemp("colabfold"), str(esmfold_checkpoint), "colabfold")


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as stream:
        return list(csv.reader(stream, delimiter="\t"))


def mean_b_factors(path: Path) -> list[float]:
    """Of each residue, chain after chain, as gemmi reads them."""
    model = gemmi.read_structure(str(path))[0]
    return [float(np.mean([atom.b_iso for atom in residue])) for chain in model for residue in chain]


# nf-core/proteinfold: modules/local/run_esmfold/main.nf, bin/extract_metrics.py and docs/output.md of release 2.0.


def test_one_command_writes_what_nf_core_expects_by_name(nf_core: Path):
    endings = ("_esmfold.pdb", "_plddt.tsv", "_plddt_mqc.tsv", "_ptm.tsv", "_0_pae.tsv")
    expected = {name + ending for name in SEQUENCES for ending in endings} | TABLES | {"versions.yml", IPTM}
    assert {path.name for path in nf_core.iterdir()} == expected


@pytest.mark.parametrize("name", SEQUENCES)
def test_plddt_for_nf_core_is_the_mean_over_the_atoms_of_the_pdb(nf_core: Path, name: str):
    header, *rows = rows_of(nf_core / f"{name}_plddt.tsv")
    assert header == ["Positions", "rank_0"]
    assert [row[0] for row in rows] == [str(position) for position in range(20)]
    assert [float(row[1]) for row in rows] == pytest.approx(mean_b_factors(nf_core / f"{name}_esmfold.pdb"), abs=0.006)
    assert all(re.fullmatch(r"\d+\.\d\d", row[1]) for row in rows)
    assert (nf_core / f"{name}_plddt_mqc.tsv").read_bytes() == (nf_core / f"{name}_plddt.tsv").read_bytes()


@pytest.mark.parametrize("name", SEQUENCES)
def test_errors_and_ptm_for_nf_core_are_those_of_the_prediction(nf_core: Path, by_demo, name: str):
    errors = rows_of(nf_core / f"{name}_0_pae.tsv")
    assert all(re.fullmatch(r"\d+\.\d{4}", error) for row in errors for error in row)
    np.testing.assert_allclose(np.array(errors, dtype=float), by_demo[name].pae, atol=1e-3)
    ((rank, ptm),) = rows_of(nf_core / f"{name}_ptm.tsv")
    assert rank == "0"
    assert float(ptm) == pytest.approx(by_demo[name].ptm, abs=1e-3)


def test_iptm_for_nf_core_is_that_of_the_prediction(nf_core: Path, by_demo):
    ((rank, iptm),) = rows_of(nf_core / IPTM)
    assert rank == "0"
    assert float(iptm) == pytest.approx(by_demo["pair"].iptm, abs=1e-3)


def test_tables_have_plddt_where_structures_have_expected_errors(esmfold_checkpoint: Path, tmp_path: Path):
    (tmp_path / "in.fasta").write_text(TEXT)
    found = {}
    for kind in ("plddt", "error"):
        fold_fasta(
            tmp_path / "in.fasta",
            tmp_path / kind,
            str(esmfold_checkpoint),
            layout="nf-core",
            b_factor=kind,
            num_recycles=0,
        )
        found[kind] = (tmp_path / kind / "one_plddt.tsv").read_bytes()
    assert found["plddt"] == found["error"]
    assert mean_b_factors(tmp_path / "plddt" / "one_esmfold.pdb") != mean_b_factors(
        tmp_path / "error" / "one_esmfold.pdb"
    )


def test_versions_for_nf_core_are_of_one_process(nf_core: Path):
    ((process, versions),) = yaml.safe_load((nf_core / "versions.yml").read_text()).items()
    assert process == "PROTQUANT_FOLD"
    assert list(versions) == ["protquant", "pytorch", "numpy", "python"]
    assert versions["protquant"] == version("protquant")
    assert versions["numpy"] == np.__version__


# ColabFold: colabfold/batch.py and colabfold/alphafold/predict.py of its main branch.


def test_colabfold_files_are_found_by_their_names(colabfold: Path):
    tag = "rank_001_small_esmfold_model_1_seed_000"
    endings = (f"_unrelaxed_{tag}.pdb", f"_scores_{tag}.json", "_predicted_aligned_error_v1.json", "_pae.png")
    endings += ("_plddt.png", ".done.txt")
    expected = {name + ending for name in SEQUENCES for ending in endings}
    assert {path.name for path in colabfold.iterdir()} == expected | TABLES
    assert (colabfold / "one.done.txt").read_bytes() == b""
    for picture in colabfold.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", SEQUENCES)
def test_colabfold_scores_have_its_keys_and_the_values_of_the_prediction(colabfold: Path, esmfold, name: str):
    scores = json.loads((colabfold / f"{name}_scores_rank_001_small_esmfold_model_1_seed_000.json").read_text())
    assert [key for key in scores if key != "iptm"] == ["plddt", "max_pae", "pae", "ptm"]
    prediction = predicted(esmfold)[name]
    np.testing.assert_allclose(scores["plddt"], prediction.plddt, atol=0.006)
    np.testing.assert_allclose(scores["pae"], prediction.pae, atol=0.006)
    assert scores["max_pae"] == pytest.approx(prediction.pae.max(), abs=1e-3)
    assert scores["ptm"] == pytest.approx(prediction.ptm, abs=0.006)
    assert all(round(value, 2) == value for value in [*scores["plddt"], *scores["pae"][0], scores["ptm"]])
    errors = json.loads((colabfold / f"{name}_predicted_aligned_error_v1.json").read_text())
    assert errors == {"predicted_aligned_error": scores["pae"], "max_predicted_aligned_error": scores["max_pae"]}


# What holds for all of them.


@pytest.mark.parametrize("name", LAYOUTS)
def test_targets_of_different_names_never_share_a_file(name: str):
    endings = [file.ending for file in layout_of(name, "facebook/esmfold_v1").files]
    assert len(set(endings)) == len(endings)
    assert [(one, other) for one in endings for other in endings if one != other and one.endswith(other)] == []
    assert all("/" not in ending for ending in endings)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_page_of_layouts_names_every_file_and_kind(name: str):
    page = (Path(__file__).parents[2] / "docs" / "layouts.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{name}` \| .*$", page, flags=re.MULTILINE)
    for file in layout_of(name, "m").files:
        assert f"`x{file.ending.replace('rank_001_m_model_1_seed_000', 'TAG')}`" in row
        assert f"`{file.kind}`" in row


def test_the_name_of_a_checkpoint_file_stands_without_its_ending(tmp_path: Path):
    (tmp_path / "esmfold_3B_v1.pt").touch()
    endings = [file.ending for file in layout_of("colabfold", str(tmp_path / "esmfold_3B_v1.pt")).files]
    assert "_unrelaxed_rank_001_esmfold_3B_v1_model_1_seed_000.pdb" in endings


@pytest.fixture
def fold_small(esmfold_checkpoint: Path, tmp_path: Path) -> Callable[..., FoldRun]:
    """Fold with a small model of random weights."""

    def run(folder: str = "out", **settings) -> FoldRun:
        (tmp_path / "in.fasta").write_text(TEXT)
        settings = {"num_recycles": 0, "plots": False} | settings
        return fold_fasta(tmp_path / "in.fasta", tmp_path / folder, str(esmfold_checkpoint), **settings)

    return run


def test_kinds_of_files_are_left_out_of_any_layout(fold_small, tmp_path: Path):
    fold_small(layout="nf-core", skip_output=["pae", "scores"])
    targets = {"one_esmfold.pdb", "pair_esmfold.pdb"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == targets | TABLES | {"versions.yml"}
    with pytest.raises(ProtquantError, match=r"--skip-output cif: not known to the layout nf-core; known are pdb, sc"):
        fold_small(layout="nf-core", skip_output=["cif"])


def test_a_layout_that_is_not_known_is_refused(fold_small, tmp_path: Path):
    with pytest.raises(ProtquantError, match=r"--layout nfcore: not known; did you mean nf-core\?"):
        fold_small(layout="nfcore")
    assert not (tmp_path / "out").exists()


def test_a_target_that_does_not_fit_pdb_fails_where_a_layout_has_no_other_file_of_it(fold_small, monkeypatch):
    def too_large(atoms, path, remarks):
        raise PDBLimitError(f"{path}: 100000 atoms.")

    monkeypatch.setattr(importlib.import_module("protquant.predicting.fold_outputs"), "write_pdb", too_large)
    failures = fold_small(layout="colabfold").failures
    assert len(failures) == 2
    assert "100000 atoms. Only the layout protquant has mmCIF." in failures[0]["error"]


def test_shards_of_a_layout_give_what_one_run_gives(fold_small, tmp_path: Path):
    fold_small("whole", layout="nf-core", max_tokens_per_batch=0)
    for shard in ("1/2", "2/2"):
        fold_small("parts", layout="nf-core", max_tokens_per_batch=0, shard=shard)
    merge_shards(tmp_path / "parts", tmp_path / "in.fasta")
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in (tmp_path / "parts").iterdir()} == names
    for name in names - {"manifest.jsonl"}:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
