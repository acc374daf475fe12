"""Checkpoints whose codes stay codes: no float weight is made of what runs on integers."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from protquant.checkpoints import load, save_quantized
from protquant.integer import to_integer
from protquant.models import (
    ESM2,
    ESM2Config,
    ESMFold,
    ESMFoldConfig,
    StructureModuleConfig,
    TrunkConfig,
    encode_complexes,
    tokenize,
)
from protquant.preparing import quantize
from protquant.quant import QuantizedLinear, Recipe, Report
from protquant.quant.decoded_weights import decoded_weights

SEQUENCES = ["GIVEQCCTSICSLYQLENYCN", "FVNQHLCGSHLVEALYLVCG"]
# Projections of the last layer's attention have no integer kernel.
MIXED = {
    "name": "mixed",
    "calibration": {"range": "minmax"},
    "kinds": {
        "linear_weight": {"format": "uniform", "bits": 4, "granularity": "channel", "symmetric": False},
        "linear_input": {"format": "uniform", "bits": 8, "symmetric": False},
    },
    "sites": {"layers.1.attn.*_proj.weight": {"format": "piecewise_linear", "bits": 4, "breakpoint": "numeric"}},
}
LEFT = [f"layers.1.attn.{name}_proj" for name in ("q", "k", "v", "out")]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def encoder() -> tuple[ESM2, Report]:
    torch.manual_seed(0)
    model = ESM2(ESM2Config(num_layers=2, dim=72, num_heads=4, ffn_dim=104)).eval()
    return quantize(model, Recipe.from_dict(MIXED), SEQUENCES, execution="simulate", cache=False)


@pytest.fixture(scope="module")
def folder(encoder: tuple[ESM2, Report], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_quantized(*encoder, tmp_path_factory.mktemp("kept") / "model")


@pytest.fixture(scope="module")
def folding(tmp_path_factory: pytest.TempPathFactory) -> tuple[ESMFold, Path]:
    torch.manual_seed(0)
    module = StructureModuleConfig(single_dim=48, pair_dim=24, ipa_dim=8, num_heads=2, resnet_dim=16, num_layers=1)
    trunk = TrunkConfig(
        num_blocks=1,
        single_dim=48,
        pair_dim=24,
        single_head_dim=8,
        pair_head_dim=8,
        position_bins=4,
        max_recycles=1,
        structure_module=module,
    )
    lm = ESM2Config(num_layers=1, dim=72, num_heads=4, ffn_dim=104)
    model = ESMFold(ESMFoldConfig(lm=lm, trunk=trunk, plddt_hidden_dim=16)).eval()
    quantized, report = quantize(model, "w8a8-int8", SEQUENCES, execution="simulate", cache=False)
    return quantized, save_quantized(quantized, report, tmp_path_factory.mktemp("kept") / "folding")


class FloatMatrices(TorchDispatchMode):
    """Remembers the shapes of all float matrices with data that any operation gives, and of their transposes."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and not tensor.is_meta:
                self.shapes |= {tuple(tensor.shape), tuple(tensor.shape)[::-1]} if tensor.ndim == 2 else set()
        return out


def telling_shapes(model: nn.Module) -> set[tuple[int, ...]]:
    """Shapes of quantized weights that no other matrix of the model has, nor that of scales."""
    codes = [m.packed_codes for m in model.modules() if isinstance(m, QuantizedLinear) and m.packed_codes]
    others = {tuple(p.shape) for p in model.parameters()}
    shapes = {each.shape for each in codes if 1 not in each.shape}
    return shapes - others - {shape[::-1] for shape in others}


def test_no_float_weight_is_ever_made_of_what_runs_on_integers(folding: tuple[ESMFold, Path]):
    quantized, folder = folding
    telling = telling_shapes(quantized)
    assert {(144, 48), (192, 48), (96, 24), (24, 96), (104, 72), (72, 104)} <= telling
    with FloatMatrices() as seen:
        _, support = to_integer(load(folder), "reference", inplace=True)
    assert all("_head." in row.path for row in support.simulated)
    assert not telling & seen.shapes
    with FloatMatrices() as simulated:
        load(folder)(encode_complexes(SEQUENCES), 0)
    assert telling <= simulated.shapes


def test_nor_while_it_runs_on_a_cpu(encoder: tuple[ESM2, Report], folder: Path):
    telling = telling_shapes(encoder[0])
    with FloatMatrices() as seen:
        model, support = to_integer(load(folder), "cpu", inplace=True)
        model.logits(tokenize(SEQUENCES))
    assert {row.path for row in support.simulated} >= set(LEFT)
    assert telling == {(104, 72), (72, 104)}
    assert not telling & seen.shapes
    # Those of the layers that are left are there, for what they are.
    assert (72, 72) in seen.shapes


def test_it_runs_as_what_was_quantized_and_converted_in_memory(folding: tuple[ESMFold, Path]):
    quantized, folder = folding
    batch = encode_complexes(SEQUENCES)
    for backend in ("reference", "cpu"):
        here, _ = to_integer(quantized, backend)
        loaded, support = to_integer(load(folder), backend, inplace=True)
        assert all("_head." in row.path for row in support.simulated)
        for name in ("positions", "plddt_logits", "pae_logits", "distogram_logits"):
            assert torch.equal(getattr(loaded(batch, 1), name), getattr(here(batch, 1), name)), name


def test_layers_without_a_kernel_are_decoded_as_before(encoder: tuple[ESM2, Report], folder: Path):
    quantized, tokens = encoder[0], tokenize(SEQUENCES)
    here, _ = to_integer(quantized, "reference")
    loaded, support = to_integer(load(folder), "reference", inplace=True)
    assert {row.path for row in support.simulated} >= set(LEFT)
    left = {path: module for path, module in loaded.named_modules() if isinstance(module, QuantizedLinear)}
    assert left
    for path, layer in left.items():
        assert layer.packed_codes is not None
        assert torch.equal(layer.weight, quantized.get_submodule(path).weight)
    assert torch.equal(loaded.logits(tokens), here.logits(tokens))


def test_a_loaded_model_simulates_what_was_saved(encoder: tuple[ESM2, Report], folder: Path):
    quantized, tokens = encoder[0], tokenize(SEQUENCES)
    loaded = load(folder)
    layers = {path: m for path, m in loaded.named_modules() if isinstance(m, QuantizedLinear) and m.packed_codes}
    assert {*LEFT, "layers.0.attn.q_proj"} <= layers.keys()
    for path, layer in layers.items():
        ours, theirs = layer.weight_codes(), quantized.get_submodule(path).weight_codes()
        assert torch.equal(ours.codes, theirs.codes)
        assert ours.codes.dtype == theirs.codes.dtype
        assert (ours.regions is None) == (theirs.regions is None)
    assert torch.equal(loaded.logits(tokens), quantized.logits(tokens))


def test_decoded_weights_are_kept_up_to_a_bound(folder: Path, monkeypatch: pytest.MonkeyPatch):
    tokens, loaded = tokenize(SEQUENCES), load(folder)
    kept = loaded.logits(tokens)
    assert decoded_weights.nbytes > 0
    first = loaded.get_submodule("layers.0.attn.q_proj")
    assert first.weight is first.weight
    decoded_weights.clear()
    monkeypatch.setattr(decoded_weights, "limit", first.weight.nbytes)
    decoded_weights.clear()
    assert torch.equal(loaded.logits(tokens), kept)
    assert decoded_weights.nbytes == first.weight.nbytes
    del loaded, first
    gc.collect()
    assert decoded_weights.nbytes == 0


def test_codes_go_where_the_model_goes_and_its_type_is_that_of_what_is_decoded(folder: Path):
    layer = load(folder, dtype=torch.bfloat16).get_submodule("layers.0.attn.q_proj")
    assert layer.weight.dtype == torch.bfloat16
    assert torch.equal(layer.weight, load(folder).get_submodule("layers.0.attn.q_proj").weight.bfloat16())
    assert "weight" not in dict(layer.named_parameters())
    moved = load(folder).to("meta")
    assert moved.get_submodule("layers.0.attn.q_proj").packed_codes.packed.is_meta


def test_a_loaded_model_can_be_saved_again(encoder: tuple[ESM2, Report], folder: Path, tmp_path: Path):
    again = save_quantized(load(folder), encoder[1], tmp_path / "again")
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    assert names == ["layers.0.safetensors", "layers.1.safetensors", "model.safetensors"]
    for name in names:
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_codes_in_memory_take_the_bits_that_they_have(folder: Path):
    layer = load(folder).get_submodule("layers.0.attn.q_proj")
    assert layer.packed_codes.packed.numel() == 72 * 72 // 2
