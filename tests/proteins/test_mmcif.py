"""mmCIF files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from biotite.structure.io.pdb import PDBFile
from biotite.structure.io.pdbx import CIFBlock, CIFFile, get_sequence, get_structure
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from protquant.errors import ProtquantError
from protquant.proteins import Prediction, atoms_from_atom37, write_mmcif, write_pdb

Atom37 = Callable[[str], tuple[np.ndarray, ...]]


def columns(block: CIFBlock, category: str, *names: str) -> list[tuple[str, ...]]:
    return list(zip(*(block[category][name].as_array().tolist() for name in names), strict=True))


@pytest.mark.parametrize("sequence", ["M", "MKW:GAX:MKW", "ACDEFGHIKLMNPQRSTVWY"])
def test_it_holds_what_the_pdb_file_holds(tmp_path: Path, predict: Callable[..., Prediction], sequence: str) -> None:
    prediction = predict(sequence)
    fields = ["b_factor", "occupancy"]
    cif = get_structure(CIFFile.read(write_mmcif(prediction, tmp_path / "x.cif")), model=1, extra_fields=fields)
    pdb = PDBFile.read(write_pdb(prediction.atoms, tmp_path / "x.pdb")).get_structure(model=1, extra_fields=fields)
    assert cif == pdb


def test_confidence_is_where_viewers_look_for_it(tmp_path: Path, predict: Callable[..., Prediction]) -> None:
    prediction = predict("MX:GA")
    block = CIFFile.read(write_mmcif(prediction, tmp_path / "x.cif")).block
    assert columns(block, "ma_qa_metric", "id", "name", "mode", "type") == [
        ("1", "pLDDT", "global", "pLDDT"),
        ("2", "pLDDT", "local", "pLDDT"),
        ("3", "pTM", "global", "pTM"),
        ("4", "PAE", "local-pairwise", "PAE"),
    ]
    assert columns(block, "ma_qa_metric_global", "metric_id", "metric_value") == [
        ("1", f"{prediction.mean_plddt:.2f}0"),
        ("3", "0.870"),
    ]
    plddt = [f"{value:.2f}0" for value in prediction.plddt]
    names = ("label_asym_id", "label_seq_id", "label_comp_id", "metric_id", "metric_value")
    assert columns(block, "ma_qa_metric_local", *names) == [
        ("A", "1", "MET", "2", plddt[0]),
        ("B", "1", "GLY", "2", plddt[2]),
        ("B", "2", "ALA", "2", plddt[3]),
    ]


def test_a_prediction_without_ptm_has_no_ptm_metric(tmp_path: Path, predict: Callable[..., Prediction]) -> None:
    block = CIFFile.read(write_mmcif(predict("MK", ptm=float("nan")), tmp_path / "x.cif")).block
    metrics = [("pLDDT", "global"), ("pLDDT", "local"), ("PAE", "local-pairwise")]
    assert columns(block, "ma_qa_metric", "name", "mode") == metrics


def test_iptm_is_there_for_the_whole_and_for_each_pair_of_chains(
    tmp_path: Path, predict: Callable[..., Prediction]
) -> None:
    pairs = np.array([[0.9, 0.25, 0.5], [0.25, 0.8, 0.75], [0.5, 0.75, 0.7]])
    prediction = predict("MK:GA:WY", iptm=0.625, chain_pair_iptm=pairs)
    block = CIFFile.read(write_mmcif(prediction, tmp_path / "x.cif")).block
    ids = dict(columns(block, "ma_qa_metric", "name", "id"))
    assert (ids["ipTM"], "0.625") in columns(block, "ma_qa_metric_global", "metric_id", "metric_value")
    chains = dict(columns(block, "ma_entity_instance_feature", "feature_id", "label_asym_id"))
    rows = columns(block, "ma_qa_metric_feature_pairwise", "feature_id_1", "feature_id_2", "metric_id", "metric_value")
    assert [(chains[first], chains[second], metric, value) for first, second, metric, value in rows] == [
        ("A", "B", ids["ipTM of two chains"], "0.250"),
        ("A", "C", ids["ipTM of two chains"], "0.500"),
        ("B", "C", ids["ipTM of two chains"], "0.750"),
    ]
    assert columns(block, "ma_qa_metric", "name", "type")[3:5] == [("ipTM", "ipTM"), ("ipTM of two chains", "ipTM")]


def test_the_aligned_error_of_a_long_protein_is_left_to_its_own_file(
    tmp_path: Path, predict: Callable[..., Prediction]
) -> None:
    prediction = predict("MKW")
    beside = CIFFile.read(write_mmcif(prediction, tmp_path / "x.cif", pae_residues=2, pae_file="x_pae.json")).block
    assert columns(beside, "ma_entry_associated_files", "file_url") == [("x_pae.json",)]
    inside = CIFFile.read(write_mmcif(prediction, tmp_path / "y.cif", pae_residues=3, pae_file="y_pae.json")).block
    assert inside["ma_qa_metric_local_pairwise"].row_count == 9
    nowhere = CIFFile.read(write_mmcif(prediction, tmp_path / "z.cif", pae_residues=0)).block
    assert "ma_entry_associated_files" not in nowhere
    for block in (beside, nowhere):
        assert "ma_qa_metric_local_pairwise" not in block
        assert ("PAE",) not in columns(block, "ma_qa_metric", "name")
    assert "ma_entry_associated_files" not in inside


def test_an_aligned_error_that_is_not_finite_is_refused(tmp_path: Path, predict: Callable[..., Prediction]) -> None:
    prediction = predict("MK")
    prediction.pae = np.full((2, 2), np.nan)
    with pytest.raises(ProtquantError, match="predicted aligned error of ubq is not finite"):
        write_mmcif(prediction, tmp_path / "x.cif")
    assert list(tmp_path.iterdir()) == []


def test_chains_of_one_sequence_are_one_entity(tmp_path: Path, predict: Callable[..., Prediction]) -> None:
    block = CIFFile.read(write_mmcif(predict("MKX:GA:MKX"), tmp_path / "x.cif")).block
    assert columns(block, "struct_asym", "id", "entity_id") == [("A", "1"), ("B", "2"), ("C", "1")]
    poly = columns(block, "entity_poly", "pdbx_strand_id", "pdbx_seq_one_letter_code")
    assert [(chains, sequence.strip()) for chains, sequence in poly] == [("A,C", "MK(UNK)"), ("B", "GA")]
    assert columns(block, "entity_poly_seq", "entity_id", "num", "mon_id")[:3] == [
        ("1", "1", "MET"),
        ("1", "2", "LYS"),
        ("1", "3", "UNK"),
    ]
    by_chain = set(columns(block, "atom_site", "label_asym_id", "label_entity_id"))
    assert by_chain == {("A", "1"), ("B", "2"), ("C", "1")}


def test_no_line_is_longer_than_cif_allows(tmp_path: Path, predict: Callable[..., Prediction]) -> None:
    prediction = predict("GA:" + "GXAS" * 300, header="long " * 1000)
    path = write_mmcif(prediction, tmp_path / "x.cif")
    assert max(map(len, path.read_text().splitlines())) <= 2048
    chains = get_sequence(CIFFile.read(path))
    assert {name: str(sequence) for name, sequence in chains.items()} == {"A": "GA", "B": "GXAS" * 300}


def test_more_than_62_chains_are_written(tmp_path: Path, predict: Callable[..., Prediction]) -> None:
    prediction = predict(":".join(["GA"] * 63))
    atoms = get_structure(CIFFile.read(write_mmcif(prediction, tmp_path / "x.cif")), model=1)
    assert atoms.chain_id[-1] == "AA"
    with pytest.raises(ProtquantError, match="mmCIF only"):
        write_pdb(prediction.atoms, tmp_path / "x.pdb")


def test_the_same_prediction_gives_the_same_bytes(tmp_path: Path, predict: Callable[..., Prediction]) -> None:
    first, second = (write_mmcif(predict(), tmp_path / name) for name in ("1.cif", "2.cif"))
    assert first.read_bytes() == second.read_bytes()


def test_a_target_without_atoms_is_refused(tmp_path: Path, predict: Callable[..., Prediction]) -> None:
    with pytest.raises(ProtquantError, match="has no atoms"):
        write_mmcif(predict("XX"), tmp_path / "x.cif")


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60) | st.text("'\"#;_$[]? loop\ndata.", max_size=20))
@example("""it's a "title" """)
@example("\n;stop\n;\ndata_x\nloop_")
@example("")
def test_no_header_breaks_the_file(tmp_path: Path, atom37: Atom37, header: str) -> None:
    positions, mask, plddt = atom37("MK")
    atoms = atoms_from_atom37(positions, mask, "MK", plddt)
    path = write_mmcif(Prediction("x", header, "MK", atoms, plddt[:, 1]), tmp_path / "x.cif")
    file = CIFFile.read(path)
    assert list(file) == ["x"]
    assert file.block["struct"]["title"].as_item().startswith("Prediction of ")
    assert len(get_structure(file, model=1)) == len(atoms)
    np.testing.assert_array_equal(file.block["entry"]["id"].as_array(), ["x"])
