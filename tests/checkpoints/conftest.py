"""Small checkpoints of every layout, written by the libraries that own it."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from esm.model import esm2 as fair_esm
from torch import Tensor
from transformers import EsmForMaskedLM, EsmForProteinFolding

from protquant.checkpoints import save_quantized
from protquant.checkpoints.fair_esm import STEM
from protquant.checkpoints.names import FAIR_ESM_ESM2, HUGGING_FACE_ESM2
from protquant.models import ESM2, ESM2Config
from protquant.preparing import quantize
from protquant.quant import Recipe


@pytest.fixture
def esm2_folder(hugging_face_esm2: EsmForMaskedLM, tmp_path: Path) -> Path:
    hugging_face_esm2.save_pretrained(tmp_path / "esm2")
    return tmp_path / "esm2"


@pytest.fixture
def esmfold_folder(hugging_face_esmfold: EsmForProteinFolding, tmp_path: Path) -> Path:
    hugging_face_esmfold.save_pretrained(tmp_path / "esmfold")
    return tmp_path / "esmfold"


def write_fair_esm2(path: Path, state: dict[str, Tensor]) -> None:
    """Write as fair-esm's releases are: names with the prefixes of training, the contact regression beside."""
    settings = Namespace(encoder_layers=3, encoder_embed_dim=40, encoder_attention_heads=5, token_dropout=True)
    model, regression = {}, {}
    for name, tensor in state.items():
        if name.startswith("contact_head."):
            regression[name] = tensor
        else:
            prefix = "encoder." if name.startswith("lm_head.") else "encoder.sentence_encoder."
            model[prefix + name] = tensor
    torch.save({"cfg": {"model": settings}, "model": model}, path)
    torch.save({"model": regression}, path.with_name(f"{path.stem}-contact-regression.pt"))


def as_fair_esm2(hugging_face: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same encoder under fair-esm's names; what it has besides is as in a fresh fair-esm model."""
    state = fair_esm.ESM2(num_layers=3, embed_dim=40, attention_heads=5).state_dict()
    for name, tensor in hugging_face.items():
        if ours := HUGGING_FACE_ESM2.to_ours(name):
            theirs = FAIR_ESM_ESM2.to_theirs(ours)
            assert theirs in state
            state[theirs] = tensor
    state["lm_head.weight"] = state["embed_tokens.weight"]
    return state


@pytest.fixture
def fair_esm2_file(fair_esm2: fair_esm.ESM2, tmp_path: Path) -> Path:
    path = tmp_path / "esm2_t3_tiny.pt"
    write_fair_esm2(path, fair_esm2.state_dict())
    return path


@pytest.fixture
def same_esm2_twice(hugging_face_esm2: EsmForMaskedLM, esm2_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """One set of weights, as a file of fair-esm and as a folder of transformers."""
    path = tmp_path / "esm2_t3_same.pt"
    write_fair_esm2(path, as_fair_esm2(hugging_face_esm2.state_dict()))
    return path, esm2_folder


@pytest.fixture
def fair_esmfold_file(hugging_face_esmfold: EsmForProteinFolding, tmp_path: Path) -> Path:
    """fair-esm's ESMFold cannot be built here (it needs openfold); its folding part is named as in transformers."""
    state = hugging_face_esmfold.state_dict()
    # ESMFold's own `lm_head`, over residue types, is not the language model's.
    stem = as_fair_esm2({name: tensor for name, tensor in state.items() if name.startswith("esm.")})
    folding = {name: tensor for name, tensor in state.items() if not name.startswith("esm.")}
    trunk = hugging_face_esmfold.config.esmfold_config.trunk
    structure_module = Namespace(no_blocks=trunk.structure_module.num_blocks, trans_scale_factor=10)
    settings = Namespace(trunk={"max_recycles": 4, "structure_module": structure_module}, lddt_head_hid_dim=20)
    write_fair_esm2(tmp_path / STEM, stem)
    path = tmp_path / "esmfold_3B_v1.pt"
    torch.save({"cfg": {"model": settings}, "model": folding}, path)
    return path


@pytest.fixture(scope="session")
def quantized_esm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder in several formats; 4-bit weights."""
    torch.manual_seed(0)
    model = ESM2(ESM2Config(num_layers=2, dim=64, num_heads=4, ffn_dim=128)).eval()
    kinds = {
        "linear_weight": {"format": "uniform", "bits": 4, "granularity": "channel", "symmetric": False},
        "linear_input": {"format": "uniform", "bits": 8},
        "norm_gain": {"format": "piecewise_linear", "bits": 4, "breakpoint": "numeric"},
        "norm_input": {"format": "uniform", "bits": 8, "granularity": "token"},
    }
    quantized, report = quantize(model, Recipe("several", kinds=kinds), ["GIVEQCCTSICS"], cache=False)
    return save_quantized(quantized, report, tmp_path_factory.mktemp("quantized") / "model")
