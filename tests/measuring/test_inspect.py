import json
from pathlib import Path

import pytest

from protquant.files import json_value
from protquant.measuring import inspect_model


def test_every_site_is_reported_with_what_became_of_it(esmfold_checkpoint: Path):
    report, document = inspect_model(str(esmfold_checkpoint), "w8")
    formats = {site["site"]: site["format"] for site in document["sites"]}
    assert formats["trunk.blocks.0.tri_mul_out.left_proj.weight"] != "float"
    assert formats["trunk.blocks.0.tri_mul_out.left_proj.input"] == "float"
    assert len(formats) == len(report.sites)
    assert document["recipe"]["name"] == "w8"
    assert document["weight_bytes"] < document["float_weight_bytes"] == 4 * document["parameters"]


def test_the_document_is_json(esmfold_checkpoint: Path, calibration_file: Path):
    _, document = inspect_model(str(esmfold_checkpoint), "w8a8-uniform", calibration=calibration_file)
    assert json.loads(json.dumps(json_value(document)))["activation_bits"] == pytest.approx(8)


def test_memory_is_predicted_for_folding_models_only(esmfold_checkpoint: Path, esm2_checkpoint: Path):
    _, document = inspect_model(str(esmfold_checkpoint), lengths=(64, 256, 1024))
    assert list(document["memory"]) == ["64", "256", "1024"]
    assert list(document["memory"].values()) == sorted(document["memory"].values())
    assert inspect_model(str(esm2_checkpoint))[1]["memory"] == {}
