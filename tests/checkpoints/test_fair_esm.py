"""fair-esm's files load whole, and give the model that transformers' layout gives."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import omegaconf
import pytest
import torch
from esm import pretrained
from esm.model import esm2 as fair_esm
from torch import Tensor

from protquant.checkpoints import load, load_fair_esm, load_hugging_face
from protquant.checkpoints.fair_esm import STEM
from protquant.errors import ProtquantError
from protquant.models import ESM2, ESMFold, encode_complexes, tokenize

TOKENS = tokenize(["MKTAYIAKQRQISFVKSHFSRQ", "GSHMKT"])
SENTENCE = "encoder.sentence_encoder."


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = torch.load(path, weights_only=False)
    change(content)
    torch.save(content, path)


@torch.no_grad()
def test_esm2_equals_fair_esm(fair_esm2_file: Path, fair_esm2: fair_esm.ESM2) -> None:
    model = load_fair_esm(fair_esm2_file)
    assert isinstance(model, ESM2)
    expected = fair_esm2(TOKENS, return_contacts=True)
    valid = TOKENS != 1
    torch.testing.assert_close(model.logits(TOKENS)[valid], expected["logits"][valid], atol=1e-4, rtol=0)
    contacts = model.contacts(TOKENS)
    torch.testing.assert_close(contacts[0], expected["contacts"][0], atol=1e-4, rtol=0)
    torch.testing.assert_close(contacts[1, :6, :6], expected["contacts"][1, :6, :6], atol=1e-4, rtol=0)


def test_file_is_one_that_fair_esm_reads(fair_esm2_file: Path) -> None:
    """The releases are too large to test with; that fair-esm itself takes our imitations says they are faithful."""
    data = torch.load(fair_esm2_file, weights_only=False)
    regression = torch.load(fair_esm2_file.with_name("esm2_t3_tiny-contact-regression.pt"))
    model, _ = pretrained.load_model_and_alphabet_core("esm2_t3_tiny", data, regression)
    assert isinstance(model, fair_esm.ESM2)


def test_esm2_equals_the_same_weights_from_transformers(same_esm2_twice: tuple[Path, Path]) -> None:
    fair_file, hugging_face_folder = same_esm2_twice
    ours, theirs = load_fair_esm(fair_file), load_hugging_face(hugging_face_folder)
    assert ours.config == theirs.config
    assert ours.fingerprint == theirs.fingerprint


@torch.no_grad()
def test_esmfold_equals_the_same_weights_from_transformers(fair_esmfold_file: Path, esmfold_folder: Path) -> None:
    ours, theirs = load_fair_esm(fair_esmfold_file), load_hugging_face(esmfold_folder)
    assert isinstance(ours, ESMFold)
    assert isinstance(theirs, ESMFold)
    assert ours.config.trunk == theirs.config.trunk
    assert ours.config.lm.has_lm_head
    state, expected = ours.state_dict(), theirs.state_dict()
    assert {name for name in state if not name.startswith("lm.lm_head.")} == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    batch = encode_complexes(["MKTAYIAK", "GSH"])
    assert torch.equal(ours(batch, num_recycles=1).positions, theirs(batch, num_recycles=1).positions)


def test_esmfold_that_holds_its_stem_needs_no_other_file(fair_esmfold_file: Path, tmp_path: Path) -> None:
    expected = load_fair_esm(fair_esmfold_file)
    stem = torch.load(tmp_path / STEM, weights_only=False)["model"]
    stem |= torch.load(tmp_path / STEM.replace(".pt", "-contact-regression.pt"))["model"]
    stem = {f"esm.{name.removeprefix(SENTENCE).removeprefix('encoder.')}": tensor for name, tensor in stem.items()}
    edit(fair_esmfold_file, lambda content: content["model"].update(stem))
    (tmp_path / STEM).unlink()
    assert load_fair_esm(fair_esmfold_file).fingerprint == expected.fingerprint


def test_esmfold_without_its_stem_says_which_file_to_add(fair_esmfold_file: Path, tmp_path: Path) -> None:
    (tmp_path / STEM).unlink()
    with pytest.raises(ProtquantError, match=f"put {STEM} .* beside it"):
        load_fair_esm(fair_esmfold_file)


def test_without_contact_regression_there_is_no_contact_head(fair_esm2_file: Path) -> None:
    fair_esm2_file.with_name("esm2_t3_tiny-contact-regression.pt").unlink()
    model = load_fair_esm(fair_esm2_file)
    assert not model.config.has_contact_head
    with pytest.raises(ProtquantError, match="no contact head"):
        model.contacts(TOKENS)


@torch.no_grad()
def test_half_rounded_rotary_frequencies_are_kept(fair_esm2_file: Path, fair_esm2: fair_esm.ESM2) -> None:
    """Releases were trained in half precision; fair-esm uses the rounded frequencies that a file holds."""

    def halve(content: dict[str, Any]) -> None:
        for name in content["model"]:
            if name.endswith("inv_freq"):
                content["model"][name] = content["model"][name].half()

    edit(fair_esm2_file, halve)
    data = torch.load(fair_esm2_file, weights_only=False)
    regression = torch.load(fair_esm2_file.with_name("esm2_t3_tiny-contact-regression.pt"))
    reference, _ = pretrained.load_model_and_alphabet_core("esm2_t3_tiny", data, regression)
    expected = reference.eval()(TOKENS)["logits"][0]
    assert not torch.allclose(fair_esm2(TOKENS)["logits"][0], expected, atol=1e-4)
    torch.testing.assert_close(load_fair_esm(fair_esm2_file).logits(TOKENS)[0], expected, atol=1e-4, rtol=0)


def test_settings_of_omegaconf_are_read_without_its_code(
    fair_esmfold_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk = {"max_recycles": 2, "structure_module": {"no_blocks": 5, "trans_scale_factor": 7}}
    edit(fair_esmfold_file, lambda content: content["cfg"].update(model=omegaconf.OmegaConf.create({"trunk": trunk})))
    monkeypatch.setattr(omegaconf.DictConfig, "__setstate__", None)
    model = load_fair_esm(fair_esmfold_file)
    assert isinstance(model, ESMFold)
    assert model.config.trunk.max_recycles == 2
    assert model.config.trunk.structure_module.num_layers == 5
    assert model.config.trunk.structure_module.translation_scale == 7


def test_code_in_a_file_is_not_run(fair_esm2_file: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (subprocess.getoutput, (f"touch {tmp_path / 'sprung'}",))

    edit(fair_esm2_file, lambda content: content.update(args=Trap()))
    model = load_fair_esm(fair_esm2_file)
    assert not (tmp_path / "sprung").exists()
    assert model.config.num_layers == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop(SENTENCE + "layers.1.fc2.bias"), r"1 tensors are missing: layers\.1\.fc2\.bias"),
        (lambda state: state.pop(SENTENCE + "embed_tokens.weight"), r"embed_tokens\.weight is missing"),
        (lambda state: state.update(extra=torch.ones(1)), r"1 tensors have no place in the model: extra"),
        (
            lambda state: state.update({SENTENCE + "layers.0.fc2.bias": torch.ones(3)}),
            r"layers\.0\.fc2\.bias is \(3,\) and should be \(40,\)",
        ),
        (lambda state: state["encoder.lm_head.weight"].add_(1), r"lm_head\.weight differs from embed_tokens\.weight"),
        (
            lambda state: state[SENTENCE + "layers.2.self_attn.rot_emb.inv_freq"].mul_(2),
            r"layers\.2\.self_attn\.rot_emb\.inv_freq differs",
        ),
    ],
    ids=["missing", "missing_embedding", "surplus", "misshapen", "untied", "mixed_frequencies"],
)
def test_tensors_that_do_not_fit_are_named(
    fair_esm2_file: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    def apply(content: dict[str, Any]) -> None:
        state = content["model"]
        state.update({name: tensor.clone() for name, tensor in state.items()})
        change(state)

    edit(fair_esm2_file, apply)
    with pytest.raises(ProtquantError, match=message) as caught:
        load_fair_esm(fair_esm2_file)
    assert str(fair_esm2_file) in str(caught.value)


def test_missing_tensor_of_esmfold_is_named(fair_esmfold_file: Path) -> None:
    name = "trunk.blocks.1.tri_mul_out.linear_a_p.weight"
    edit(fair_esmfold_file, lambda content: content["model"].pop(name))
    with pytest.raises(ProtquantError, match=f"1 tensors are missing: {name}"):
        load_fair_esm(fair_esmfold_file)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_file_is_named(fair_esm2_file: Path, share: float) -> None:
    fair_esm2_file.write_bytes(fair_esm2_file.read_bytes()[: int(share * fair_esm2_file.stat().st_size)])
    with pytest.raises(ProtquantError, match=f"{fair_esm2_file.name}.*truncated or damaged"):
        load_fair_esm(fair_esm2_file)


@pytest.mark.parametrize("content", [[1, 2], {"model": 3}, {"weights": {}}, {"model": {"a": "b"}}])
def test_other_files_of_pytorch_are_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(ProtquantError, match="not a checkpoint of fair-esm"):
        load_fair_esm(path)


@pytest.mark.parametrize("prefix", ["model.", "model.module.", "model.encoder.sentence_encoder."])
def test_a_lightning_checkpoint_of_its_model_is_read(fair_esm2_file: Path, prefix: str) -> None:
    expected = load_fair_esm(fair_esm2_file).fingerprint
    content = torch.load(fair_esm2_file, weights_only=False)
    state = {name.removeprefix(SENTENCE).removeprefix("encoder."): tensor for name, tensor in content["model"].items()}
    path = fair_esm2_file.with_suffix(".ckpt")
    contacts = fair_esm2_file.with_name(f"{fair_esm2_file.stem}-contact-regression.pt")
    assert contacts.is_file()
    torch.save(
        {"state_dict": {prefix + name: tensor for name, tensor in state.items()}, "pytorch-lightning_version": "2.4"},
        path,
    )
    assert load(path).fingerprint == expected


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("embed_positions.weight", "is an ESM-1b or ESM-1v"),
        ("msa_position_embedding", "is an MSA Transformer"),
        ("embed_out", "is an ESM-1;"),
        ("layers.0.self_attn.q_proj.lora_A.weight", "is a LoRA adapter"),
    ],
)
def test_models_that_are_not_read_are_called_by_name(fair_esm2_file: Path, name: str, says: str) -> None:
    edit(fair_esm2_file, lambda content: content["model"].update({SENTENCE + name: torch.ones(2, 2)}))
    with pytest.raises(ProtquantError, match=says):
        load_fair_esm(fair_esm2_file)


def test_weights_of_transformers_without_their_sizes_are_called_so(tmp_path: Path) -> None:
    path = tmp_path / "epoch=3.ckpt"
    torch.save({"state_dict": {"model.esm.embeddings.word_embeddings.weight": torch.ones(33, 4)}}, path)
    with pytest.raises(ProtquantError, match="give the folder that its `save_pretrained` writes"):
        load(path)
