"""Quantized checkpoints that are damaged, newer or not what they say are refused by name of what is wrong."""

import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from protquant.checkpoints import load
from protquant.errors import ProtquantError

NAME = "layers.0.ffn.up_proj"
BLOCK, REST = "layers.0.safetensors", "model.safetensors"


@pytest.fixture
def copied(quantized_esm2: Path, tmp_path: Path) -> Path:
    shutil.copytree(quantized_esm2, tmp_path / "model")
    return tmp_path / "model"


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what `scheme.json` says, and sign it as if it had been written so."""
    path = folder / "scheme.json"
    content = json.loads(path.read_text())
    for name in content["weights"]:
        content["weights"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    change(content)
    del content["sha256"]
    body = json.dumps(content)[1:].encode()
    path.write_bytes(f'{{"sha256": "{hashlib.sha256(body).hexdigest()}",\n'.encode() + body)


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], None], file: str = BLOCK) -> None:
    """Change the tensors of a file, and sign them as if they had been written so."""
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file)
    edit(folder, lambda _: None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    data=st.data(),
    part=st.sampled_from(["scheme", "header", "tensors"]),
    file=st.sampled_from([BLOCK, REST]),
    mode=st.sampled_from(["flip", "cut"]),
)
def test_any_damage_is_refused_by_name(
    quantized_esm2: Path, tmp_path: Path, data: st.DataObject, part: str, file: str, mode: str
) -> None:
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(quantized_esm2, folder)
    path = folder / ("scheme.json" if part == "scheme" else file)
    content = bytearray(path.read_bytes())
    first, last = 0, len(content) - 1
    if part != "scheme":
        header = 8 + struct.unpack("<Q", content[:8])[0]
        first, last = (0, header - 1) if part == "header" else (header, last)
    position = data.draw(st.integers(first, last), label="position")
    if mode == "cut":
        del content[position:]
    else:
        content[position] ^= data.draw(st.integers(1, 255), label="flipped bits")
    path.write_bytes(content)
    with pytest.raises(ProtquantError, match=path.name):
        load(folder)


def test_missing_file_is_named(copied: Path) -> None:
    (copied / BLOCK).unlink()
    with pytest.raises(ProtquantError, match=r"layers\.0\.safetensors: no such file"):
        load(copied)
    (copied / "scheme.json").unlink()
    with pytest.raises(ProtquantError, match=r"no config\.json and no scheme\.json"):
        load(copied)


def test_newer_version_asks_for_a_newer_protquant(copied: Path) -> None:
    edit(copied, lambda content: content.update(version=3))
    with pytest.raises(ProtquantError, match=r"layout version 3; this protquant reads version 2\. Install a newer"):
        load(copied)


def change_module(folder: Path, **changes: object) -> None:
    edit(folder, lambda content: content["modules"][NAME].update(changes))


def test_unknown_class_setting_or_entry_is_named(quantized_esm2: Path, copied: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(ProtquantError, match=message):
            load(copied)
        shutil.copy(quantized_esm2 / "scheme.json", copied)

    change_module(copied, **{"class": "QuantizedAttention"})
    refused(rf"{NAME}: unknown class 'QuantizedAttention'; install a newer protquant")
    change_module(copied, **{"class": "StaticQuantizer"})  # known, but no thing
    refused("unknown class 'StaticQuantizer'")
    change_module(copied, settings={"in_features": 64, "out_features": 128, "rank": 4})
    refused(rf"{NAME}: QuantizedLinear has no setting 'rank'")
    change_module(copied, settings={"in_features": "64", "out_features": 128})
    refused("setting 'in_features' of QuantizedLinear cannot be '64'")
    change_module(copied, settings={"in_features": 64, "out_features": 128, "forward": "__import__"})
    refused("setting 'forward' of QuantizedLinear cannot be")
    change_module(copied, hooks=[])
    refused(f"{NAME}: unknown entry 'hooks'")
    edit(copied, lambda content: content["recipe"]["steps"].append({"step": "alchemy"}))
    refused("unknown step 'alchemy'")
    edit(copied, lambda content: content.update(kind="esm3"))
    refused("unknown kind of model 'esm3'")
    edit(copied, lambda content: content["modules"].update({"layers.9.ffn": content["modules"][NAME]}))
    refused(r"scheme\.json")


def test_tensors_that_do_not_fit_are_named(quantized_esm2: Path, copied: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(ProtquantError, match=message):
            load(copied)
        shutil.copytree(quantized_esm2, copied, dirs_exist_ok=True)

    edit_tensors(copied, lambda tensors: tensors.update({f"{NAME}.weight": tensors[f"{NAME}.weight"][:-1].clone()}))
    refused(rf"{NAME}\.weight has 4095 bytes of codes and should have 4096")
    edit_tensors(copied, lambda tensors: tensors.update({"embedding.weight": torch.zeros(33, 63)}), REST)
    refused(r"embedding\.weight is \(33, 63\) and should be \(33, 64\)")
    edit_tensors(copied, lambda tensors: tensors.update(stray=torch.zeros(1)))
    refused("1 tensors have no place in the model: stray")
    edit_tensors(copied, lambda tensors: tensors.pop("embedding.weight"), REST)
    refused(r"1 tensors are missing: embedding\.weight")
    edit_tensors(copied, lambda tensors: tensors.pop(f"{NAME}.bias"))
    refused(rf"the tensor {NAME}\.bias is missing")
    edit_tensors(copied, lambda tensors: tensors.update({f"{NAME}.bias": torch.zeros(127)}))
    refused(rf"{NAME}\.bias is torch\.float32 \(127,\) and should be torch\.float32 \(128,\)")
    smaller = {"dtype": "float32", "shape": [64, 64], "bits": 4, "pieces": [[None, 0, 16]], "codes": "uint8"}
    edit(copied, lambda content: content["modules"][NAME]["parameters"].update(weight=smaller))
    refused(rf"{NAME}\.weight has shape \(64, 64\) and should be \(128, 64\)")
    edit(copied, lambda content: content["modules"].update({NAME: content["modules"]["layers.0.ffn.down_proj"]}))
    refused(rf"{NAME}\.weight")


def test_a_layer_of_other_ends_is_refused(copied: Path) -> None:
    transposed = {"dtype": "float32", "shape": [64, 128], "bits": 4, "pieces": [[None, 0, 16]], "codes": "uint8"}

    def turn(content):
        node = content["modules"][NAME]
        node["settings"] |= {"in_features": 128, "out_features": 64}
        node["parameters"] = {"weight": transposed}
        node["settings"]["bias"] = None
        node["modules"]["weight_quantizer"]["buffers"] |= {"scale": {"float32": 1.0}, "zero_point": None}

    edit(copied, turn)
    edit_tensors(copied, lambda tensors: [tensors.pop(f"{NAME}.{name}") for name in ("bias",)])
    with pytest.raises(ProtquantError, match=rf"{NAME} is 128 -> 64 and should be 64 -> 128"):
        load(copied)
