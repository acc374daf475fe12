"""Checkpoints of transformers load whole, in every layout, or not at all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from trained_weights import trained
from transformers import (
    EsmForMaskedLM,
    EsmForProteinFolding,
    EsmForSequenceClassification,
    EsmForTokenClassification,
    EsmModel,
)

from protquant.checkpoints import load, load_hugging_face
from protquant.errors import ProtquantError
from protquant.models import ESM2, ESMFold, encode_complexes, tokenize

SEQUENCES = ["MKTAYIAKQRQISFVKSHFSRQ", "GSHMKT"]


def logits(folder: Path) -> Tensor:
    model = load_hugging_face(folder)
    assert isinstance(model, ESM2)
    with torch.no_grad():
        return model.logits(tokenize(SEQUENCES))


def edit(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    # A tensor of its own for each name: safetensors does not store shared ones.
    save_file({name: tensor.clone() for name, tensor in state.items()}, folder / "model.safetensors")


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def leave(folder: Path) -> None:
    """Keep what transformers wrote."""


def to_pytorch_bin(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def to_shards(folder: Path, *, pickled: bool) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {}
    for number, start in enumerate(range(0, len(state), 20), 1):
        part = dict(list(state.items())[start : start + 20])
        name = f"pytorch_model-{number:05}.bin" if pickled else f"model-{number:05}.safetensors"
        torch.save(part, folder / name) if pickled else save_file(part, folder / name)
        places.update(dict.fromkeys(part, name))
    index = "pytorch_model.bin.index.json" if pickled else "model.safetensors.index.json"
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def test_masked_lm_equals_transformers(esm2_folder: Path, hugging_face_esm2: EsmForMaskedLM) -> None:
    tokens = tokenize(SEQUENCES)
    with torch.no_grad():
        expected = hugging_face_esm2(tokens, attention_mask=tokens != 1).logits
    valid = tokens != 1
    torch.testing.assert_close(logits(esm2_folder)[valid], expected[valid], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "repack",
    [
        to_pytorch_bin,
        lambda folder: to_shards(folder, pickled=False),
        lambda folder: to_shards(folder, pickled=True),
        lambda folder: edit(folder, old_norm_names),
        lambda folder: edit(folder, new_norm_names),
        lambda folder: edit(folder, add_what_may_be_ignored),
    ],
    ids=["bin", "safetensors_shards", "bin_shards", "gamma_beta", "weight_bias", "surplus_that_is_known"],
)
def test_every_layout_gives_the_same_model(esm2_folder: Path, repack: Callable[[Path], None]) -> None:
    expected = load_hugging_face(esm2_folder)
    repack(esm2_folder)
    assert load_hugging_face(esm2_folder).fingerprint == expected.fingerprint


def old_norm_names(state: dict[str, Tensor]) -> None:
    for name in [name for name in state if "LayerNorm" in name]:
        leaf = {"weight": "gamma", "bias": "beta"}
        stem, _, last = name.rpartition(".")
        state[f"{stem}.{leaf.get(last, last)}"] = state.pop(name)


def new_norm_names(state: dict[str, Tensor]) -> None:
    for name in [name for name in state if name.endswith((".gamma", ".beta"))]:
        stem, _, last = name.rpartition(".")
        state[f"{stem}.{ {'gamma': 'weight', 'beta': 'bias'}[last] }"] = state.pop(name)


def add_what_may_be_ignored(state: dict[str, Tensor]) -> None:
    state["esm.embeddings.position_ids"] = torch.arange(1026)[None]
    state["esm.embeddings.position_embeddings.weight"] = torch.zeros(1026, 40)
    state["lm_head.decoder.weight"] = state["esm.embeddings.word_embeddings.weight"]


def test_encoder_without_prefix_has_no_language_model_head(
    hugging_face_esm2: EsmForMaskedLM, esm2_folder: Path, tmp_path: Path
) -> None:
    encoder = EsmModel(hugging_face_esm2.config, add_pooling_layer=True)
    encoder.load_state_dict(hugging_face_esm2.esm.state_dict(), strict=False)
    encoder.save_pretrained(tmp_path / "encoder")
    model, whole = load_hugging_face(tmp_path / "encoder"), load_hugging_face(esm2_folder)
    assert not model.config.has_lm_head
    assert model.config.has_contact_head
    tokens = tokenize(SEQUENCES)
    assert torch.equal(model.contacts(tokens), whole.contacts(tokens))
    with pytest.raises(ProtquantError, match="no language-model head"):
        model.logits(tokens)


def test_checkpoint_without_contact_head_cannot_be_asked_for_contacts(esm2_folder: Path) -> None:
    edit(esm2_folder, lambda state: [state.pop(name) for name in list(state) if "contact_head" in name])
    model = load_hugging_face(esm2_folder)
    assert not model.config.has_contact_head
    with pytest.raises(ProtquantError, match="no contact head"):
        model.contacts(tokenize(SEQUENCES))


@torch.no_grad()
def test_half_rounded_rotary_frequencies_are_kept(hugging_face_esm2: EsmForMaskedLM, esm2_folder: Path) -> None:
    """Released ESM-2 was trained in half precision, and its files may carry rounded frequencies."""

    def round_frequencies(state: dict[str, Tensor]) -> None:
        (name,) = (name for name in state if name.endswith("inv_freq"))
        rounded = state.pop(name).half()
        state.update({f"esm.encoder.layer.{n}.attention.self.rotary_embeddings.inv_freq": rounded for n in range(3)})

    exact = logits(esm2_folder)
    edit(esm2_folder, round_frequencies)
    reference = EsmForMaskedLM.from_pretrained(esm2_folder, attn_implementation="eager").eval()
    tokens = tokenize(SEQUENCES)
    valid = tokens != 1
    expected = reference(tokens, attention_mask=valid).logits
    torch.testing.assert_close(logits(esm2_folder)[valid], expected[valid], atol=1e-4, rtol=0)
    assert not torch.allclose(exact[valid], expected[valid], atol=1e-4)


def test_esmfold_equals_transformers(esmfold_folder: Path, hugging_face_esmfold: EsmForProteinFolding) -> None:
    assert_folds_alike(esmfold_folder, hugging_face_esmfold)


@torch.no_grad()
def assert_folds_alike(folder: Path, reference: EsmForProteinFolding) -> None:
    model = load_hugging_face(folder)
    assert isinstance(model, ESMFold)
    assert not model.config.lm.has_lm_head
    batch = encode_complexes(SEQUENCES)
    expected = reference(batch.aatype, batch.mask.long(), position_ids=batch.residue_index, num_recycles=1)
    actual = model(batch, num_recycles=1)
    valid = batch.mask
    torch.testing.assert_close(actual.positions14[valid], expected.positions[-1][valid], atol=1e-3, rtol=0)
    torch.testing.assert_close(actual.plddt[valid], 100 * expected.plddt[valid], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("lm_head.dense.weight"), r"1 tensors are missing: lm_head\.dense\.weight"),
        (
            lambda state: [state.pop(name) for name in list(state) if ".layer.1." in name],
            r"16 tensors are missing: esm\.encoder\.layer\.1\..* and 11 more",
        ),
        (lambda state: state.update(classifier=torch.ones(1)), r"1 tensors have no place in the model: classifier"),
        (
            lambda state: state.update({"embedding.weight": torch.ones(33, 40)}),
            r"no place in the model: embedding\.weight",
        ),
        (
            lambda state: state.update({"lm_head.bias": torch.ones(32)}),
            r"lm_head\.bias is \(32,\) and should be \(33,\)",
        ),
        (
            lambda state: state.update({"lm_head.decoder.weight": torch.ones(33, 40)}),
            r"lm_head\.decoder\.weight differs",
        ),
        (
            lambda state: state.update({"lm_head.bias": torch.ones(33, dtype=torch.int8)}),
            r"not of a floating-point type: lm_head\.bias",
        ),
        (lambda state: state["lm_head.bias"].fill_(torch.nan), r"NaN or infinity: lm_head\.bias"),
    ],
    ids=["missing", "many_missing", "surplus", "surplus_with_our_name", "misshapen", "untied", "integers", "nan"],
)
def test_tensors_that_do_not_fit_are_named(
    esm2_folder: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    edit(esm2_folder, change)
    with pytest.raises(ProtquantError, match=message) as caught:
        load_hugging_face(esm2_folder)
    assert str(esm2_folder) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_embedding_type": "absolute"}, "is an ESM-1b or ESM-1v, whose positions are learned"),
        ({"emb_layer_norm_before": True}, "emb_layer_norm_before is True"),
        ({"model_type": "bert"}, "model_type is 'bert'"),
        ({"num_attention_heads": 7}, "dim 40 is not a multiple of num_heads 7"),
        ({"num_attention_heads": 0}, "sizes do not go together"),
        ({"num_attention_heads": 4}, "heads of 10 channels need"),
        ({"num_hidden_layers": 2}, "no place in the model: esm.encoder.layer.2."),
        ({"hidden_size": "wide"}, "cannot be read as the configuration"),
    ],
)
def test_unsupported_or_wrong_settings_are_refused(esm2_folder: Path, changes: dict[str, object], message: str) -> None:
    edit_config(esm2_folder, **changes)
    with pytest.raises(ProtquantError, match=message):
        load_hugging_face(esm2_folder)


@pytest.mark.parametrize("repack", [leave, to_pytorch_bin], ids=["safetensors", "bin"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_file_is_named(esm2_folder: Path, repack: Callable[[Path], None], share: float) -> None:
    repack(esm2_folder)
    (path,) = (path for path in esm2_folder.iterdir() if path.suffix in {".safetensors", ".bin"})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ProtquantError, match=f"{path.name}.*truncated or damaged.*fetch it again"):
        load_hugging_face(esm2_folder)


def test_missing_shard_is_named(esm2_folder: Path) -> None:
    to_shards(esm2_folder, pickled=False)
    (esm2_folder / "model-00002.safetensors").unlink()
    with pytest.raises(ProtquantError, match=r"model-00002\.safetensors: no such file"):
        load_hugging_face(esm2_folder)


def test_folder_without_weights_says_what_was_expected(esm2_folder: Path) -> None:
    (esm2_folder / "model.safetensors").unlink()
    with pytest.raises(ProtquantError, match=r"no weights; expected one of .*pytorch_model\.bin"):
        load_hugging_face(esm2_folder)


def test_pickle_with_code_is_refused(esm2_folder: Path) -> None:
    (esm2_folder / "model.safetensors").unlink()
    torch.save({"weight": Path("x")}, esm2_folder / "pytorch_model.bin")
    with pytest.raises(ProtquantError, match=r"pytorch_model\.bin: holds more than tensors .*pathlib"):
        load_hugging_face(esm2_folder)


def test_hub_name_that_is_not_cached_says_so_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ProtquantError, match="facebook/esm2_t6_8M_UR50D: not in the cache of downloads"):
        load_hugging_face("facebook/esm2_t6_8M_UR50D", local_files_only=True)


def test_hub_name_loads_from_the_cache_without_network(
    esm2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "hub" / "models--someone--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(esm2_folder, repository / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    model = load_hugging_face("someone/small")
    assert model.source == "someone/small"
    assert model.fingerprint == load_hugging_face(esm2_folder).fingerprint


@torch.no_grad()
def test_trained_esm2_equals_transformers() -> None:
    folder = trained("esm2_8m_finetuned")
    reference = EsmForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()
    model = load_hugging_face(folder)
    tokens = tokenize(SEQUENCES)
    valid = tokens != 1
    expected = reference(tokens, attention_mask=valid).logits
    # Logits of tokens that are no residue reach -38, where float32 itself is 1e-4 apart from float64.
    torch.testing.assert_close(model.logits(tokens)[valid], expected[valid], atol=1e-4, rtol=1e-5)
    residues = slice(4, 24)
    torch.testing.assert_close(
        model.logits(tokens)[valid][:, residues], expected[valid][:, residues], atol=1e-4, rtol=0
    )
    contacts = reference.predict_contacts(tokens, valid.long())
    for length, ours, theirs in zip(map(len, SEQUENCES), model.contacts(tokens), contacts, strict=True):
        torch.testing.assert_close(ours[:length, :length], theirs[:length, :length], atol=1e-4, rtol=0)


def test_trained_esmfold_equals_transformers() -> None:
    folder = trained("esmfold_8m_ts50")
    assert_folds_alike(folder, EsmForProteinFolding.from_pretrained(folder).eval())


@pytest.mark.parametrize("kind", [EsmForTokenClassification, EsmForSequenceClassification])
def test_the_encoder_of_a_classifier_is_read_and_its_head_is_said_not_to_be(
    hugging_face_esm2: EsmForMaskedLM, esm2_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: type
) -> None:
    theirs = kind(hugging_face_esm2.config)
    theirs.esm.load_state_dict(hugging_face_esm2.esm.state_dict(), strict=False)
    theirs.save_pretrained(tmp_path / "classifier")
    model, whole = load_hugging_face(tmp_path / "classifier"), load_hugging_face(esm2_folder)
    tokens = tokenize(SEQUENCES)
    expected = whole(tokens, return_hidden=True).hidden
    assert torch.equal(model(tokens, return_hidden=True).hidden, expected)
    assert "is a classifier; its encoder is read, and its head is not" in caplog.text


@pytest.mark.parametrize("prefix", ["module.", "base_model.model.", "_orig_mod.", "module._orig_mod.", "model."])
def test_prefixes_of_training_programs_are_taken_off(esm2_folder: Path, prefix: str) -> None:
    expected = load_hugging_face(esm2_folder).fingerprint
    edit(esm2_folder, lambda state: [state.update({prefix + name: state.pop(name)}) for name in list(state)])
    assert load_hugging_face(esm2_folder).fingerprint == expected


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("base_model.model.esm.encoder.layer.0.attention.self.query.lora_A.default.weight", "is a LoRA adapter; merge"),
        ("esm.encoder.layer.0.attention.self.query.SCB", "is quantized by bitsandbytes"),
        ("esm.encoder.layer.0.attention.self.query.qweight", "is quantized by GPTQ or AWQ"),
        ("transformer.blocks.0.attn.layernorm_qkv.1.weight", "is an ESM C or ESM3"),
    ],
)
def test_models_that_are_not_read_are_called_by_name(esm2_folder: Path, name: str, says: str) -> None:
    edit(esm2_folder, lambda state: state.update({name: torch.ones(1)}))
    with pytest.raises(ProtquantError, match=says):
        load_hugging_face(esm2_folder)


def test_a_folder_with_an_adapter_says_how_to_merge_it(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "facebook/esm2_t6_8M_UR50D"}')
    with pytest.raises(ProtquantError, match=r"is a LoRA adapter of facebook/esm2_t6_8M_UR50D.*merge_and_unload"):
        load(tmp_path)


def test_long_lists_of_tensors_are_cut_after_five(esm2_folder: Path) -> None:
    edit(esm2_folder, lambda state: state.update({f"extra{k}": torch.ones(1) for k in range(12)}))
    with pytest.raises(ProtquantError, match=r"12 tensors have no place in the model: .*extra2 and 7 more"):
        load_hugging_face(esm2_folder)


def test_wrappers_within_names_are_taken_off_and_a_name_that_comes_twice_is_refused(esm2_folder: Path) -> None:
    expected = load_hugging_face(esm2_folder).fingerprint

    def wrap(state: dict[str, Tensor]) -> None:
        for name in list(state):
            wrapped = name.replace(".layer.1.", ".layer.1._fsdp_wrapped_module._checkpoint_wrapped_module.")
            state[wrapped] = state.pop(name)

    edit(esm2_folder, wrap)
    assert load_hugging_face(esm2_folder).fingerprint == expected

    def twice(state: dict[str, Tensor]) -> None:
        one = next(iter(state))
        whole = dict(state)
        state.clear()
        state.update({f"module.{name}": tensor for name, tensor in whole.items()} | {one: whole[one]})

    edit(esm2_folder, twice)
    with pytest.raises(ProtquantError, match="is there twice, under two spellings"):
        load_hugging_face(esm2_folder)
