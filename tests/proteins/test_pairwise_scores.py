"""The predicted aligned error inside the mmCIF file, as other programs read it."""

import io
from collections.abc import Callable
from pathlib import Path

import gemmi
import modelcif
import modelcif.dumper
import modelcif.model
import modelcif.qa_metric
import modelcif.reader
import numpy as np
import pytest

from protquant.proteins import Prediction, write_mmcif

CATEGORY = "_ma_qa_metric_local_pairwise."
COLUMNS = ["label_asym_id_1", "label_seq_id_1", "label_asym_id_2", "label_seq_id_2"]
SEQUENCE = "MKW:GXA:MKW"
PLACES = [("A", 1), ("A", 2), ("A", 3), ("B", 1), ("B", 3), ("C", 1), ("C", 2), ("C", 3)]  # those with atoms
INDICES = [0, 1, 2, 3, 5, 6, 7, 8]


@pytest.fixture
def prediction(predict: Callable[..., Prediction]) -> Prediction:
    return predict(SEQUENCE)


@pytest.fixture
def expected(prediction: Prediction) -> np.ndarray:
    assert prediction.pae is not None
    assert not np.allclose(prediction.pae, prediction.pae.T)  # so that a mix-up of rows and columns would be seen
    return prediction.pae[np.ix_(INDICES, INDICES)]


def test_gemmi_reads_the_matrix_that_was_written(prediction: Prediction, expected: np.ndarray, tmp_path: Path) -> None:
    block = gemmi.cif.read(str(write_mmcif(prediction, tmp_path / "x.cif"))).sole_block()
    (metric,) = [row[0] for row in block.find("_ma_qa_metric.", ["id", "mode"]) if row[1] == "local-pairwise"]
    table = block.find(CATEGORY, ["ordinal_id", "model_id", "metric_id", *COLUMNS, "metric_value"])
    rows = [list(row) for row in table]
    assert [row[:3] for row in rows] == [[str(n + 1), "1", metric] for n in range(64)]
    assert [((r[3], int(r[4])), (r[5], int(r[6]))) for r in rows] == [(a, b) for a in PLACES for b in PLACES]
    values = np.array([float(row[7]) for row in rows]).reshape(8, 8)
    np.testing.assert_array_equal(values, np.round(expected, 2))


def test_modelcif_reads_the_matrix_that_was_written(
    prediction: Prediction, expected: np.ndarray, tmp_path: Path
) -> None:
    with write_mmcif(prediction, tmp_path / "x.cif").open() as stream:
        (system,) = modelcif.reader.read(stream)
    (model,) = system.model_groups[0]
    pairs = [each for each in model.qa_metrics if isinstance(each, modelcif.qa_metric.LocalPairwise)]
    assert {(each.name, each.type) for each in pairs} == {("PAE", "PAE")}
    found = {
        ((each.residue1.asym.id, each.residue1.seq_id), (each.residue2.asym.id, each.residue2.seq_id)): each.value
        for each in pairs
    }
    values = np.array([[found[first, second] for second in PLACES] for first in PLACES])
    np.testing.assert_array_equal(values, np.round(expected, 2))
    assert len(pairs) == 64


def test_the_rows_are_those_that_the_writer_of_modelcif_writes(prediction: Prediction, tmp_path: Path) -> None:
    with write_mmcif(prediction, tmp_path / "x.cif").open() as stream:
        (system,) = modelcif.reader.read(stream)
    theirs = io.StringIO()
    modelcif.dumper.write(theirs, [system])
    tables = [
        [[*list(row)[:-1], float(row[-1])] for row in block.find_mmcif_category(CATEGORY)]
        for block in (
            gemmi.cif.read(str(tmp_path / "x.cif")).sole_block(),
            gemmi.cif.read_string(theirs.getvalue()).sole_block(),
        )
    ]
    assert len(tables[0]) == 64
    assert tables[0] == tables[1]
