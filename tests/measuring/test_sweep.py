import json
from importlib import import_module
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from protquant.measuring.sweep import run_job


def job(*overrides: object) -> DictConfig:
    with initialize_config_module("protquant.configs", version_base="1.3"):
        return compose("sweep", [str(override) for override in overrides])


@pytest.fixture
def contacts_job(esm2_checkpoint: Path, structures_folder: Path) -> list[object]:
    where = [f"model.name_or_path={esm2_checkpoint}", f"data.structures={structures_folder}"]
    return ["model=path", "data=folder", "task=contacts", *where]


def test_jobs_share_what_the_float_model_says(contacts_job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    predict = import_module("protquant.measuring.tasks").predict_contacts
    calls = []

    def counting(*given, **options):
        calls.append(given)
        return predict(*given, **options)

    monkeypatch.setattr("protquant.measuring.tasks.predict_contacts", counting)
    for number, quant in enumerate(("w8", "w4")):
        (tmp_path / quant).mkdir()
        record = run_job(job(*contacts_job, f"quant={quant}"), tmp_path / quant, tmp_path / "float")
        assert record["contact_drift"] > 0
        assert len(calls) == 2 * (2 + number)  # two structures: float and w8, then w4 alone
    assert len(list((tmp_path / "float").glob("*.safetensors"))) == 1


def test_a_job_that_is_done_is_not_done_again(contacts_job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = job(*contacts_job, "quant=w8")
    record = run_job(config, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("protquant.measuring.tasks.predict_contacts", lambda *_, **__: pytest.fail("predicted again"))
        assert run_job(config, tmp_path) == record
    assert run_job(job(*contacts_job, "quant=w8", "data.limit=1"), tmp_path)["targets"] == 1
    assert json.loads((tmp_path / "result.json").read_text())["record"]["targets"] == 1


def test_a_job_can_hide_residues(esm2_checkpoint: Path, tmp_path: Path):
    fasta = tmp_path / "heldout.fasta"
    fasta.write_text(">a\nMKTAYIAKQRQISFVKSHF\n")
    overrides = ["model=path", f"model.name_or_path={esm2_checkpoint}", "task=language", f"data.heldout={fasta}"]
    record = run_job(job(*overrides, "task.mask_every=null", "quant=w8"), tmp_path)
    assert record["pseudo_perplexity"] > 1
    assert record["logit_kl"] > 0
