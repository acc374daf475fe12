"""protquant's own layout: what is loaded is what was saved, or nothing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protquant.checkpoints import is_native, load_hugging_face, load_native, save_model
from protquant.errors import ProtquantError
from protquant.models import ESM2, ESM2Config, ESMFold, encode_complexes, tokenize

CONFIG = ESM2Config(num_layers=1, dim=8, num_heads=2, ffn_dim=16)


def small(seed: int = 0, config: ESM2Config = CONFIG) -> ESM2:
    torch.manual_seed(seed)
    return ESM2(config).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(small(), tmp_path_factory.mktemp("native") / "model")


def test_esm2_comes_back_as_it_was(saved: Path) -> None:
    model, expected = load_native(saved), small()
    assert isinstance(model, ESM2)
    assert model.config == expected.config
    assert not model.training
    tokens = tokenize(["MKTAYIAK"])
    assert torch.equal(model.logits(tokens), expected.logits(tokens))
    assert torch.equal(model.contacts(tokens), expected.contacts(tokens))


def test_config_comes_back_with_frequencies_and_absent_heads(tmp_path: Path) -> None:
    config = replace(CONFIG, rotary_frequencies=(1.0, 0.0123456789), has_lm_head=False, layer_norm_eps=1e-12)
    assert load_native(save_model(small(config=config), tmp_path / "model")).config == config


@torch.no_grad()
def test_esmfold_comes_back_as_it_was(esmfold_folder: Path, tmp_path: Path) -> None:
    expected = load_hugging_face(esmfold_folder)
    model = load_native(save_model(expected, tmp_path / "native"))
    assert isinstance(model, ESMFold)
    assert model.config == expected.config
    assert model.fingerprint == expected.fingerprint
    batch = encode_complexes(["MKTAYIAK:GSH"])
    assert torch.equal(model(batch, 1).positions, expected(batch, 1).positions)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_stored_rounded_and_loaded_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    expected = small()
    folder = save_model(expected, tmp_path / "half", dtype=dtype)
    model = load_native(folder)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected.state_dict()[name].to(dtype).float())
    again = load_native(save_model(model, tmp_path / "again", dtype=dtype))
    assert again.fingerprint == model.fingerprint


def test_fingerprint_tells_weights_and_sizes_apart(tmp_path: Path) -> None:
    models = [small(), small(), small(seed=1), small(config=replace(CONFIG, layer_norm_eps=1e-6))]
    first, same, other_weights, other_config = (
        load_native(save_model(model, tmp_path / str(number))).fingerprint for number, model in enumerate(models)
    )
    assert first == same
    assert len({first, other_weights, other_config}) == 3


def test_weights_that_overflow_half_precision_are_named(tmp_path: Path) -> None:
    model = small()
    with torch.no_grad():
        model.layers[0].ffn.up_proj.weight[0, 0] = 1e6
    with pytest.raises(ProtquantError, match=r"layers\.0\.ffn\.up_proj\.weight has values that are not finite"):
        save_model(model, tmp_path / "half", dtype=torch.float16)
    assert not list(tmp_path.iterdir())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    data=st.data(), file=st.sampled_from(["config.json", "model.safetensors"]), mode=st.sampled_from(["flip", "cut"])
)
def test_any_damage_is_refused_by_name(saved: Path, tmp_path: Path, data: st.DataObject, file: str, mode: str) -> None:
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved, folder)
    path = folder / file
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1), label="position")
    if mode == "cut":
        del content[position:]
    else:
        content[position] ^= data.draw(st.integers(1, 255), label="flipped bits")
    if file == "config.json" and same_json(bytes(content), path.read_bytes()):
        return  # a space turned into another: nothing was said differently
    path.write_bytes(content)
    with pytest.raises(ProtquantError, match=file):
        load_native(folder)


def same_json(first: bytes, second: bytes) -> bool:
    try:
        return bool(json.loads(first) == json.loads(second))
    except ValueError:
        return False


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_missing_file_is_named(saved: Path, tmp_path: Path, file: str) -> None:
    shutil.copytree(saved, tmp_path / "model")
    (tmp_path / "model" / file).unlink()
    with pytest.raises(ProtquantError, match=file):
        load_native(tmp_path / "model")


def test_later_version_asks_for_a_newer_protquant(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    with pytest.raises(ProtquantError, match=r"layout version 2; this protquant reads version 1\. Install a newer"):
        load_native(tmp_path / "model")


def test_folder_that_holds_something_is_kept_unless_asked(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ProtquantError, match="already exists and is not empty"):
        save_model(small(), folder)
    with pytest.raises(ProtquantError, match=r"not part of a checkpoint \(notes\.txt\); name another folder"):
        save_model(small(), folder, overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    save_model(small(), folder)
    save_model(small(seed=1), folder, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_failed_overwrite_leaves_the_old_model(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    rename = Path.rename

    def fail_on_the_second(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_second)
    with pytest.raises(ProtquantError, match=r"cannot be written \(No space left on device\)"):
        save_model(small(seed=1), folder, overwrite=True)
    monkeypatch.undo()
    assert load_native(folder).fingerprint == load_native(saved).fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_only_our_folders_are_native(saved: Path, esm2_folder: Path, tmp_path: Path) -> None:
    assert is_native(saved)
    assert not is_native(esm2_folder)
    assert not is_native(tmp_path / "nothing")
