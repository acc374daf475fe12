"""The random checkpoint is laid out as the released one, and loads in transformers and here."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import EsmForProteinFolding

from protquant.bench.full_size.checkpoint import make_checkpoint, sizes_like, transformers_config
from protquant.checkpoints import load
from protquant.checkpoints.hugging_face_config import esmfold_config, read_config
from protquant.checkpoints.registry import KNOWN
from protquant.errors import ProtquantError
from protquant.models import ESMFold, ESMFoldConfig
from protquant.predicting import fold


def stored(folder: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {name: (tuple(file.get_tensor(name).shape), file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    return found


def test_files_hold_what_transformers_would_save(small_checkpoint: Path, small_sizes: ESMFoldConfig):
    theirs = EsmForProteinFolding(transformers_config(small_sizes)).state_dict()
    assert stored(small_checkpoint) == {name: (tuple(each.shape), each.dtype) for name, each in theirs.items()}
    index = json.loads((small_checkpoint / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(theirs)
    assert len(list(small_checkpoint.glob("*.safetensors"))) == len(set(index["weight_map"].values())) > 2


def test_constants_are_those_of_transformers(small_checkpoint: Path, small_sizes: ESMFoldConfig):
    made = EsmForProteinFolding(transformers_config(small_sizes))
    loaded = EsmForProteinFolding.from_pretrained(small_checkpoint)
    buffers = dict(loaded.named_buffers())
    assert {"af2_to_esm", "esm.rotary_embeddings.inv_freq"} < buffers.keys()
    for name, buffer in made.named_buffers():
        assert torch.equal(buffers[name], buffer), name


def test_transformers_misses_nothing_and_has_nothing_left_over(small_checkpoint: Path):
    model, told = EsmForProteinFolding.from_pretrained(small_checkpoint, output_loading_info=True)
    assert not any(told[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    assert {each.dtype for each in model.esm.parameters()} == {torch.float16}
    assert {each.dtype for each in model.trunk.parameters()} == {torch.float32}


def test_it_loads_and_folds_here(small_checkpoint: Path, small_sizes: ESMFoldConfig):
    model = load(small_checkpoint)
    assert isinstance(model, ESMFold)
    assert replace(model.config, lm=replace(model.config.lm, rotary_frequencies=None)) == small_sizes
    assert 0 < fold(model, "MKTAYIAKQR", num_recycles=1).mean_plddt < 100


def test_the_same_seed_makes_the_same_weights(small_checkpoint: Path, small_sizes: ESMFoldConfig, tmp_path: Path):
    made = make_checkpoint(tmp_path / "again", small_sizes)
    other = make_checkpoint(tmp_path / "other", small_sizes, seed=1)
    again = load(tmp_path / "again")
    assert made["shards"] == other["shards"] == 1
    assert again.fingerprint == load(small_checkpoint).fingerprint != load(tmp_path / "other").fingerprint


def test_the_full_size_is_that_of_the_released_checkpoint(tmp_path: Path):
    config = sizes_like("esmfold_v1")
    with torch.device("meta"):
        parameters = dict(EsmForProteinFolding(transformers_config(config)).named_parameters())
    assert sum(each.numel() for each in parameters.values()) == KNOWN["esmfold_v1"].parameters
    assert sum(each.numel() * each.element_size() for each in parameters.values()) == pytest.approx(8.435e9, rel=1e-4)
    (tmp_path / "config.json").write_text(transformers_config(config).to_json_string())
    settings = read_config(tmp_path / "config.json")
    read = esmfold_config(settings)
    assert replace(read, lm=replace(read.lm, has_lm_head=False)) == config == KNOWN["esmfold_v1"].config


def test_a_smaller_model_has_the_same_parts():
    small = sizes_like("esmfold_v1", layers=2, width=320, blocks=3)
    assert (small.lm.num_layers, small.lm.dim, small.lm.num_heads, small.lm.ffn_dim) == (2, 320, 5, 1280)
    assert small.trunk == replace(sizes_like().trunk, num_blocks=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "esm2_t6_8M"}, "--like esm2_t6_8M: no released folding model has this name"),
        ({"width": 100}, "--width 100: heads have 64 channels; give a multiple of 64"),
        ({"layers": 0}, "--layers 0: give 1 or more"),
        ({"blocks": -1}, "--blocks -1: give 1 or more"),
    ],
)
def test_sizes_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ProtquantError, match=message):
        sizes_like(**arguments)


def test_a_disk_with_too_little_room_is_refused(small_sizes: ESMFoldConfig, tmp_path: Path, monkeypatch):
    room = "protquant.bench.full_size.checkpoint.shutil.disk_usage"
    monkeypatch.setattr(room, lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(ProtquantError, match=r"the disk has 0\.00 GB left"):
        make_checkpoint(tmp_path / "new", small_sizes)
    assert not (tmp_path / "new").exists()
