"""Other programs' readers find in the structure files what made them, and the warnings."""

import io
import string
from collections.abc import Callable
from pathlib import Path

import gemmi
import modelcif
import modelcif.reader
import pytest
from biotite.structure.io.pdb import PDBFile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from protquant.proteins import Prediction, Provenance, write_mmcif, write_pdb

MADE = Provenance(
    version="0.1.0",
    model="esmfold_v1",
    fingerprint="0123456789abcdef" * 4,
    float_fingerprint="fedcba9876543210" * 4,
    recipe="w8a8-int8",
    recipe_fingerprint="5" * 64,
    execution="integer",
    kernels="oneDNN int8; 2 of 238 parts simulated",
    dtype="float32",
)
PARAMETERS = {
    "model": "esmfold_v1",
    "model fingerprint": MADE.fingerprint,
    "float model fingerprint": MADE.float_fingerprint,
    "recipe": "w8a8-int8",
    "recipe fingerprint": "5" * 64,
    "execution": "integer",
    "kernels": "oneDNN int8; 2 of 238 parts simulated",
    "number type": "float32",
    "recycles": "3",
    "B-factors": "pLDDT of each atom, 0-100",
}
WARNING = "the backbone is broken: 62 % of its neighbors"


@pytest.fixture
def prediction(predict: Callable[..., Prediction]) -> Prediction:
    return predict("MKW:GAX:MKW", provenance=MADE, warnings=(WARNING,), recycles=3)


def read_modelcif(path: Path) -> modelcif.System:
    with path.open(encoding="utf-8") as stream:
        (system,) = modelcif.reader.read(stream)
    return system


def test_gemmi_finds_it_in_the_mmcif(prediction: Prediction, tmp_path: Path) -> None:
    block = gemmi.cif.read(str(write_mmcif(prediction, tmp_path / "x.cif"))).sole_block()

    def rows(category: str, *names: str) -> list[list[str]]:
        return [[gemmi.cif.as_string(value) for value in row] for row in block.find(f"{category}.", list(names))]

    assert rows("_software", "name", "version") == [["protquant", "0.1.0"]]
    assert dict(rows("_ma_software_parameter", "name", "value")) == PARAMETERS
    assert gemmi.cif.as_string(block.find_value("_struct.pdbx_model_details")) == f"WARNING: {WARNING}"
    ((details, group),) = rows("_ma_protocol_step", "details", "software_group_id")
    assert details == "; ".join(prediction.remarks())
    assert rows("_ma_software_group", "group_id", "software_id", "parameter_group_id") == [[group, "1", "1"]]
    assert rows("_ma_data", "content_type") == [["target"], ["target"], ["model coordinates"], ["other"]]
    residues = rows("_pdbx_poly_seq_scheme", "asym_id", "seq_id", "mon_id", "auth_seq_num")
    assert [row[:3] for row in residues if row[3] == ""] == [["B", "3", "UNK"]]  # without atoms
    assert {metric[1] for metric in rows("_ma_qa_metric", "name", "software_group_id")} == {group}


def test_gemmi_reads_the_atoms_of_both_files_alike(prediction: Prediction, tmp_path: Path) -> None:
    cif = gemmi.read_structure(str(write_mmcif(prediction, tmp_path / "x.cif")))
    pdb = gemmi.read_structure(str(write_pdb(prediction.atoms, tmp_path / "x.pdb", prediction.remarks())))

    def atoms(structure: gemmi.Structure) -> list[tuple[object, ...]]:
        return [
            (at.chain.name, at.residue.seqid.num, at.residue.name, at.atom.name, *at.atom.pos.tolist(), at.atom.b_iso)
            for at in structure[0].all()
        ]

    assert len(atoms(cif)) == prediction.atoms.array_length()
    assert atoms(cif) == atoms(pdb)


def test_modelcif_reads_back_what_was_written(prediction: Prediction, tmp_path: Path) -> None:
    system = read_modelcif(write_mmcif(prediction, tmp_path / "x.cif"))
    assert system.model_details == f"WARNING: {WARNING}"
    (step,) = system.protocols[0].steps
    assert step.details == "; ".join(prediction.remarks())
    ((program,),) = [step.software]
    assert (program.name, program.version) == ("protquant", "0.1.0")
    assert {parameter.name: str(parameter.value) for parameter in program.parameters} == PARAMETERS
    weights = step.input_data[-1]
    assert (weights.name, weights.data_other_details) == (
        "Weights of esmfold_v1",
        f"SHA-256 of sizes and weights: {MADE.fingerprint}",
    )
    assert [len(entity.sequence) for entity in step.input_data[:-1]] == [3, 3]
    (model,) = system.model_groups[0]
    assert list(step.output_data) == [model]
    assert len(list(model.get_atoms())) == prediction.atoms.array_length()
    shown = {(metric.name, metric.mode): metric.value for metric in model.qa_metrics}
    assert shown["pTM", "global"] == pytest.approx(0.87)
    assert shown["pLDDT", "global"] == pytest.approx(prediction.mean_plddt, abs=0.01)


def test_the_pdb_file_has_it_as_remarks(prediction: Prediction, tmp_path: Path) -> None:
    path = write_pdb(prediction.atoms, tmp_path / "x.pdb", prediction.remarks())
    lines = path.read_text().splitlines()
    assert lines[0] == "REMARK   6"
    assert max(map(len, lines)) <= 80
    # Long values go on in the next line, indented.
    text = "\n".join(line.rstrip() for line in PDBFile.read(path).get_remark(6))
    assert text.replace("\n  ", " ").splitlines() == prediction.remarks()
    remarks = gemmi.read_structure(str(path)).raw_remarks
    assert f"REMARK   6 WARNING: {WARNING}" in remarks
    assert "REMARK   6 execution: integer" in remarks


def test_a_pdb_file_without_remarks_begins_with_its_atoms(prediction: Prediction, tmp_path: Path) -> None:
    assert write_pdb(prediction.atoms, tmp_path / "x.pdb").read_text().startswith("ATOM")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(string.printable, min_size=1, max_size=30))
@example("#model")
@example("DATA_x")
@example("'it\"s' \\ a;")
@example("\n;stop\n;\ndata_x\nloop_")
def test_no_name_of_a_model_breaks_a_file(predict: Callable[..., Prediction], tmp_path: Path, name: str) -> None:
    prediction = predict("MK", provenance=Provenance(model=name), warnings=(name,))
    document = gemmi.cif.read(str(write_mmcif(prediction, tmp_path / "x.cif")))
    assert [block.name for block in document] == ["ubq"]
    assert len(gemmi.make_structure_from_block(document.sole_block())[0].sole_residue("A", gemmi.SeqId("1"))) > 0
    written = write_pdb(prediction.atoms, tmp_path / "x.pdb", prediction.remarks()).read_text()
    atoms = PDBFile.read(io.StringIO(written)).get_structure(model=1)
    assert len(atoms) == prediction.atoms.array_length()
