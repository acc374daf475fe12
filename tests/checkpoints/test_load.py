"""`load` finds a model by whatever it is called, and says what to do when it cannot."""

import importlib
from pathlib import Path

import pytest
import torch

from protquant.checkpoints import KNOWN, FloatCheckpoint, find_known, import_checkpoint, is_native, load
from protquant.checkpoints.hugging_face import open_hugging_face
from protquant.errors import ProtquantError
from protquant.models import ESM2, ESMFold
from protquant.models.registry import empty_model


def test_every_form_on_disk_is_recognized(
    same_esm2_twice: tuple[Path, Path], esmfold_folder: Path, fair_esmfold_file: Path, tmp_path: Path
) -> None:
    fair_file, folder = same_esm2_twice
    native = import_checkpoint(folder, tmp_path / "native")
    models = [load(folder), load(str(fair_file)), load(native)]
    assert all(isinstance(model, ESM2) for model in models)
    assert len({model.fingerprint for model in models}) == 1
    assert [model.source for model in models] == [str(folder), str(fair_file), str(native)]
    assert isinstance(load(esmfold_folder), ESMFold)
    assert isinstance(load(fair_esmfold_file), ESMFold)


def test_loaded_model_holds_nothing_random(esmfold_folder: Path) -> None:
    first, second = load(esmfold_folder), load(esmfold_folder)
    tensors = [*first.parameters(), *first.buffers()]
    assert not any(tensor.is_meta for tensor in tensors)
    assert all(map(torch.equal, tensors, [*second.parameters(), *second.buffers()]))


def test_dtype_keeps_the_structure_module_in_float32(esmfold_folder: Path) -> None:
    model = load(esmfold_folder, dtype=torch.bfloat16)
    assert isinstance(model, ESMFold)
    assert model.lm.embedding.weight.dtype == torch.bfloat16
    assert model.trunk.structure_module.linear_in.weight.dtype == torch.float32
    assert model.fingerprint == load(esmfold_folder).fingerprint


def test_import_writes_our_layout_once(esm2_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "native"
    assert import_checkpoint(esm2_folder, output) == output
    assert is_native(output)
    with pytest.raises(ProtquantError, match="already exists and is not empty"):
        import_checkpoint(esm2_folder, output)
    import_checkpoint(output, output, overwrite=True, dtype=torch.float16)
    size = sum(parameter.numel() for parameter in load(output).parameters())
    assert (output / "model.safetensors").stat().st_size < 2.2 * size + 10_000


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("esmfold_v2", "did you mean esmfold_v1"),
        ("esm2_t6_8m", "did you mean esm2_t6_8M"),
        ("xyz", "known are demo, esmfold_v1"),
        ("./missing/folder", "neither a known model nor an existing folder or file"),
    ],
)
def test_unknown_name_is_answered_with_close_ones(name: str, message: str) -> None:
    with pytest.raises(ProtquantError, match=message):
        load(name)


def test_folder_or_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProtquantError, match=r"no config\.json"):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ProtquantError, match="give the folder it is in"):
        load(tmp_path / "model.safetensors")


def test_known_name_goes_to_the_hub(monkeypatch: pytest.MonkeyPatch, esm2_folder: Path) -> None:
    asked = []

    def fake(name: str) -> FloatCheckpoint:
        asked.append(name)
        return open_hugging_face(esm2_folder)

    # By module, because the package has a function of that name.
    monkeypatch.setattr(importlib.import_module("protquant.checkpoints.load"), "open_hugging_face", fake)
    assert load("esm2_t6_8M").source == "esm2_t6_8M"
    load("esm2_t33_650M_UR50D")
    load("someone/model")
    assert asked == ["facebook/esm2_t6_8M_UR50D", "facebook/esm2_t33_650M_UR50D", "someone/model"]


@pytest.mark.parametrize(("name", "size"), [("esmfold_v1", "about 8.4 GB"), ("esm2_t33_650M", "about 2.6 GB")])
def test_a_released_model_that_is_not_here_is_named_with_its_size_and_what_to_do(
    name: str, size: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ProtquantError) as caught:
        load(name)
    download, trial = str(caught.value).splitlines()
    assert f"`protquant import {name} FOLDER` downloads {KNOWN[name].repository}, {size}" in download
    assert "HF_HOME" in download
    assert "`protquant demo`" in trial and "`-m demo`" in trial


@pytest.mark.parametrize("name", KNOWN)
def test_known_sizes_are_those_of_the_models(name: str) -> None:
    known = KNOWN[name]
    with torch.device("meta"):
        model = empty_model(known.config)
    assert sum(parameter.numel() for parameter in model.parameters()) == known.parameters
    assert find_known(known.repository.removeprefix("facebook/")) == known


def test_demo_is_part_of_the_package() -> None:
    model = load("demo")
    assert isinstance(model, ESMFold)
    assert model.source == "demo"
    assert model.fingerprint
