"""A checkpoint that is made one block at a time is, byte for byte, the one that is saved as a whole."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_device import pretend_device
from safetensors.torch import load_file
from torch import nn

from protquant.checkpoints import load, open_checkpoint, save_model, save_quantized
from protquant.checkpoints.partial import CallFolder, PartialCheckpoint
from protquant.checkpoints.stored_units import unit_names
from protquant.errors import ProtquantError
from protquant.models import ESM2, ESM2Config, ESMFold
from protquant.preparing import calibration_sequences, quantize
from protquant.preparing.streaming import fingerprint_of, stream_checkpoint
from protquant.quant import load_recipe

SEQUENCES = ["GIVEQCCTSICSLYQLENYCN", "FVNQHLCGSHLVEALYLVCG", "MKTAYIAKQR"]


@pytest.fixture(scope="module")
def folding(esmfold: ESMFold, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(esmfold, tmp_path_factory.mktemp("float") / "folding")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = ESM2(ESM2Config(num_layers=3, dim=64, num_heads=4, ffn_dim=96)).eval()
    return save_model(model, tmp_path_factory.mktemp("float") / "encoder")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def streamed(source: Path, recipe: str, output: Path, **settings: Any) -> dict[str, bytes]:
    stream_checkpoint(open_checkpoint(source), load_recipe(recipe), SEQUENCES, output, **settings)
    assert not output.with_name(f"{output.name}.partial").exists()
    return files(output)


@pytest.mark.parametrize("recipe", ["w8a8-int8", "w4a8-int4", "w8a8-pwlq", "w8a8-token"])
@pytest.mark.parametrize("kind", ["folding", "encoder"])
def test_the_bytes_are_those_of_the_model_that_is_quantized_in_memory(
    kind: str, recipe: str, request: pytest.FixtureRequest, tmp_path: Path
):
    source = request.getfixturevalue(kind)
    quantized, report = quantize(load(source), recipe, SEQUENCES, execution="simulate", cache=False)
    whole = files(save_quantized(quantized, report, tmp_path / "whole"))
    parts = streamed(source, recipe, tmp_path / "parts")
    assert parts.keys() == whole.keys()
    assert [name for name in whole if parts[name] != whole[name]] == []


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("where", ["before", "behind"])
def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same_bytes(
    folding: Path, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    expected = streamed(folding, "w8a8-int8", tmp_path / "once")
    put = PartialCheckpoint.put
    done: list[str | None] = []

    def stop(self: PartialCheckpoint, model: Any, unit: str | None, report: Any) -> None:
        if where == "behind":
            put(self, model, unit, report)
        if unit not in done:
            done.append(unit)
            raise StoppedError
        put(self, model, unit, report)

    monkeypatch.setattr(PartialCheckpoint, "put", stop)
    for _ in range(5):
        with pytest.raises(StoppedError):
            streamed(folding, "w8a8-int8", tmp_path / "often")
        assert not (tmp_path / "often").exists()
    assert done == [None, "lm.layers.0", "lm.layers.1", "trunk.blocks.0", "trunk.blocks.1"]
    assert streamed(folding, "w8a8-int8", tmp_path / "often") == expected
    assert "blocks are done; going on from there" in capsys.readouterr().err


def test_what_another_recipe_left_is_thrown_away(folding: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    expected = streamed(folding, "w8a8-int8", tmp_path / "once")
    with monkeypatch.context() as patch:
        patch.setattr(PartialCheckpoint, "finish", lambda *_: (_ for _ in ()).throw(StoppedError))
        with pytest.raises(StoppedError):
            streamed(folding, "w8", tmp_path / "model")
    assert (tmp_path / "model.partial").is_dir()
    assert streamed(folding, "w8a8-int8", tmp_path / "model") == expected


def test_a_folder_that_holds_something_is_refused_before_any_work(folding: Path, tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ProtquantError, match="already exists and is not empty"):
        streamed(folding, "w8", tmp_path / "full")
    assert not (tmp_path / "full.partial").exists()


def test_a_full_disk_leaves_what_is_done(folding: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if "lm.layers.1" in self.name and self.parent.name == "writing":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(ProtquantError, match=r"No space left on device.*same command goes on"):
            streamed(folding, "w8", tmp_path / "model")
    assert {path.name for path in (tmp_path / "model.partial").glob("*.json")} >= {"model.json", "lm.layers.0.json"}
    assert streamed(folding, "w8", tmp_path / "model") == streamed(folding, "w8", tmp_path / "again")


def test_a_fingerprint_is_computed_once_for_files_that_stay(
    hugging_face_esmfold: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    hugging_face_esmfold.save_pretrained(tmp_path / "model")
    value = fingerprint_of(open_checkpoint(tmp_path / "model"))
    assert value == load(tmp_path / "model").fingerprint
    monkeypatch.setattr("protquant.checkpoints.float_checkpoint.fingerprint", lambda *_: "computed anew")
    assert fingerprint_of(open_checkpoint(tmp_path / "model")) == value
    (tmp_path / "model" / "config.json").touch()
    assert fingerprint_of(open_checkpoint(tmp_path / "model")) == "computed anew"


def test_weights_and_calls_are_read_onto_the_device_that_is_asked_for(esmfold_checkpoint: Path, tmp_path: Path):
    checkpoint, nowhere = open_checkpoint(str(esmfold_checkpoint)), torch.device("meta")
    checkpoint.device = nowhere
    model = checkpoint.skeleton()
    block = unit_names(model)[0]
    checkpoint.read_into(model, block)
    assert {parameter.device.type for parameter in model.get_submodule(block).parameters()} == {"meta"}
    calls = CallFolder(tmp_path, nowhere)
    calls.put(block, 0, [(torch.ones(2, 3), None, 1.5)])
    ((tensor, *plain),) = calls.get(block, 0)
    assert (tensor.device.type, tensor.shape, plain) == ("meta", (2, 3), [None, 1.5])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "recipe"), [("folding", "w8a8-int8"), ("encoder", "w4a8-int4")])
def test_blocks_run_and_are_quantized_on_another_device(
    request: pytest.FixtureRequest, kind: str, recipe: str, tmp_path: Path
):
    source, recipe = request.getfixturevalue(kind), load_recipe(recipe)
    stream_checkpoint(open_checkpoint(source), recipe, SEQUENCES[2:], tmp_path / "here")
    with pretend_device() as device:
        stream_checkpoint(open_checkpoint(source), recipe, SEQUENCES[2:], tmp_path / "there", device=device)
    assert files(tmp_path / "there") == files(tmp_path / "here")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_nearly_the_codes_that_the_cpu_finds(tmp_path: Path):
    sequences = calibration_sequences()[:3]
    for place in ("cpu", "cuda"):
        stream_checkpoint(
            open_checkpoint("demo"), load_recipe("w8a8-int8"), sequences, tmp_path / place, device=torch.device(place)
        )
    different = number = 0
    for path in (tmp_path / "cpu").glob("*.safetensors"):
        here, there = load_file(path), load_file(tmp_path / "cuda" / path.name)
        assert here.keys() == there.keys()
        different += sum(int((here[name] != there[name]).sum()) for name in here)
        number += sum(tensor.numel() for tensor in here.values())
    assert different <= 0.01 * number
