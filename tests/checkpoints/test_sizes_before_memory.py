"""Checkpoints of strangers: what they say of sizes is checked before it is believed."""

import json
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
from transformers import EsmForMaskedLM

from protquant.checkpoints import load
from protquant.errors import ProtquantError
from protquant.models import ESM2Config, TrunkConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 10**12}, "dim is 1000000000000"),
        ({"num_hidden_layers": 10**9}, "num_layers is 1000000000"),
        ({"intermediate_size": -4}, "ffn_dim is -4"),
        ({"num_attention_heads": 0}, "num_heads is 0"),
    ],
)
def test_sizes_that_no_model_has_are_refused(esm2_folder: Path, change: dict[str, int], message: str):
    path = esm2_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ProtquantError, match=f"config.json.*{message}"):
        load(esm2_folder)


def test_configurations_check_themselves():
    for sizes, message in (
        ({"vocab_size": 8}, "33 tokens"),
        ({"layer_norm_eps": float("nan")}, "not a positive number"),
    ):
        with pytest.raises(ValueError, match=message):
            ESM2Config(**sizes)
    with pytest.raises(ValueError, match="max_recycles is 1000000"):
        TrunkConfig(max_recycles=10**6)
    assert TrunkConfig(max_recycles=0).max_recycles == 0


def test_a_tensor_that_is_larger_than_its_storage_is_refused(hugging_face_esm2: EsmForMaskedLM, esm2_folder: Path):
    state = {name: tensor.clone() for name, tensor in hugging_face_esm2.state_dict().items()}
    state["lm_head.bias"] = torch.zeros(1).expand(33)
    (esm2_folder / "model.safetensors").unlink()
    torch.save(state, esm2_folder / "pytorch_model.bin")
    with pytest.raises(ProtquantError, match=r"lm_head\.bias is said to have 132 bytes, and there are 4 in the file"):
        load(esm2_folder)


def test_a_packed_archive_is_refused(fair_esm2_file: Path):
    with ZipFile(fair_esm2_file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with ZipFile(fair_esm2_file, "w", ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with pytest.raises(ProtquantError, match=r"\.pt: .*data\.pkl in it is compressed"):
        load(fair_esm2_file)


def test_a_file_of_shapes_that_do_not_go_together_is_refused(fair_esm2_file: Path):
    content = torch.load(fair_esm2_file, weights_only=False)
    name = "encoder.sentence_encoder.layers.0.self_attn.rot_emb.inv_freq"
    content["model"][name] = torch.zeros(0)
    torch.save(content, fair_esm2_file)
    with pytest.raises(ProtquantError, match=r"esm2_t3_tiny\.pt: its tensors have no shapes"):
        load(fair_esm2_file)
