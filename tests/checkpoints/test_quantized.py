"""Quantized checkpoints: what is loaded computes what was saved, to the bit."""

import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_models import small_sizes
from torch import Tensor, nn

from protquant.checkpoints import is_quantized, load, read_scheme, save_model, save_quantized, scheme_of
from protquant.errors import ProtquantError
from protquant.models import (
    ESM2,
    ESM2Config,
    ESMFold,
    encode_complexes,
    tokenize,
)
from protquant.preparing import quantize
from protquant.quant import FORMATS, InputTransform, Recipe, Report, available_recipes, load_recipe
from protquant.quant.steps import STEPS
from protquant.quant.storable import Storable

SEQUENCES = ["GIVEQCCTSICS", "FVNQHLCGSHLV"]
ENCODER = ESM2Config(num_layers=2, dim=64, num_heads=4, ffn_dim=128)
WIDE = {"num_blocks": 1, "single_dim": 64, "pair_dim": 64, "single_head_dim": 32, "pair_head_dim": 32}
SIZES = small_sizes(
    lm={"num_layers": 1, "dim": 64, "ffn_dim": 128},
    trunk=WIDE | {"position_bins": 4, "max_recycles": 1},
    structure={"pair_dim": 32, "num_layers": 1},
)
W4A8 = {
    "name": "w4a8",
    "kinds": {
        "linear_weight": {"format": "uniform", "bits": 4, "granularity": "channel", "symmetric": False},
        "linear_input": {"format": "uniform", "bits": 8},
        "norm_gain": {"format": "piecewise_linear", "bits": 4},
        "norm_input": {"format": "uniform", "bits": 8, "granularity": "token"},
        "matmul_operand": {"format": "uniform", "bits": 8, "granularity": "channel"},
    },
}
# What makes a step put as much into the model as it can.
STEP_SETTINGS = {"smoothquant": {"everywhere": True}, "rotation": {"inputs": ["*"]}}
VARIANTS = [variant for cls in FORMATS.values() for variant in cls.variants()]
NAME = "layers.0.ffn.up_proj"


def small_esm2(config: ESM2Config = ENCODER) -> ESM2:
    torch.manual_seed(0)
    model = ESM2(config).eval()
    _roughen(model)
    return model


def small_esmfold() -> ESMFold:
    torch.manual_seed(0)
    model = ESMFold(SIZES).eval()
    _roughen(model)
    return model


@torch.no_grad()
def _roughen(model: nn.Module) -> None:
    """Gains and biases that are not all alike, as in trained models."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.2 * torch.randn(parameter.shape))


def quick(recipe: str | dict[str, Any] | Recipe) -> Recipe:
    """A recipe in the same formats and steps, without its long searches and trainings."""

    def shorten(value: Any) -> Any:
        if isinstance(value, dict):
            short = {key: shorten(each) for key, each in value.items()}
            return short | {"breakpoint": "numeric"} if value.get("breakpoint") == "search" else short
        return [shorten(each) for each in value] if isinstance(value, list | tuple) else value

    def shorten_step(step: dict[str, Any]) -> dict[str, Any]:
        known = {field.name for field in fields(STEPS[step["step"]])}
        least = {"epochs": 1, "grid": 2, "candidates": 2}
        return step | {key: value for key, value in least.items() if key in known}

    data = shorten(load_recipe(recipe).to_dict())
    data["calibration"]["range"] = "minmax"
    return Recipe.from_dict(data | {"steps": [shorten_step(step) for step in data["steps"]]})


def quantized(model: ESM2 | ESMFold, recipe: str | dict[str, Any] | Recipe) -> tuple[ESM2 | ESMFold, Report]:
    return quantize(model, quick(recipe), SEQUENCES, execution="simulate", cache=False)


@torch.no_grad()
def outputs(model: ESM2 | ESMFold) -> list[Tensor]:
    if isinstance(model, ESMFold):
        predicted = model(encode_complexes(SEQUENCES[:1]), 1)
        return [predicted.positions, predicted.plddt_logits, predicted.pae_logits, predicted.distogram_logits]
    tokens = tokenize(SEQUENCES[:1])
    return [model.logits(tokens), model.contacts(tokens)]


def assert_same(model: ESM2 | ESMFold, expected: ESM2 | ESMFold) -> None:
    """Outputs and all tensors are equal, bit for bit (0 and -0 count as the same)."""
    state = model.state_dict()
    assert list(state) == list(expected.state_dict())
    for name, tensor in expected.state_dict().items():
        assert state[name].dtype == tensor.dtype, name
        assert torch.equal(state[name], tensor), name
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in expected.named_parameters() if parameter.requires_grad}
    for output, wanted in zip(outputs(model), outputs(expected), strict=True):
        assert torch.equal(output, wanted)


@pytest.fixture
def copied(quantized_esm2: Path, tmp_path: Path) -> Path:
    shutil.copytree(quantized_esm2, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("recipe", available_recipes())
def test_every_shipped_recipe_comes_back_bit_for_bit(recipe: str, tmp_path: Path) -> None:
    for number, make in enumerate([small_esm2, small_esmfold]):
        model, report = quantized(make(), recipe)
        loaded = load(save_quantized(model, report, tmp_path / str(number)))
        assert_same(loaded, model)
        assert not loaded.training


@pytest.mark.parametrize("step", sorted(STEPS))
def test_every_step_comes_back_bit_for_bit(step: str, tmp_path: Path) -> None:
    model, report = quantized(small_esm2(), {**W4A8, "steps": [{"step": step, **STEP_SETTINGS.get(step, {})}]})
    assert_same(load(save_quantized(model, report, tmp_path / "model")), model)


@pytest.mark.parametrize("form", VARIANTS, ids=lambda form: form.label)
def test_every_format_comes_back_bit_for_bit(form, tmp_path: Path) -> None:
    used = 0
    for kind in ("linear_weight", "linear_input"):
        try:
            model, report = quantized(small_esm2(), {"kinds": {kind: form.to_config()}})
        except ProtquantError as error:
            assert "for weights" in str(error) or "for activations" in str(error)  # noqa: PT017
            continue
        assert_same(load(save_quantized(model, report, tmp_path / kind)), model)
        used += 1
    assert used


@pytest.mark.parametrize("mode", ["ptq4protein", "overlapping"])
def test_rounded_weights_keep_their_codes_where_grids_overlap(mode: str, tmp_path: Path) -> None:
    weight = {"format": "piecewise_linear", "bits": 3, "mode": mode, "breakpoint": "numeric"}
    recipe = {"kinds": {"linear_weight": weight}, "steps": [{"step": "gptq"}, {"step": "bias_correction"}]}
    model, report = quantized(small_esm2(), recipe)
    assert_same(load(save_quantized(model, report, tmp_path / "model")), model)


def test_report_and_origin_come_back(tmp_path: Path) -> None:
    model = load(save_model(small_esm2(), tmp_path / "float"))
    model, report = quantized(model, W4A8)
    folder = save_quantized(model, report, tmp_path / "model")
    scheme = read_scheme(folder)
    assert scheme.report.sites == report.sites
    assert scheme.report.recipe == report.recipe
    assert str(scheme.report) == str(report)
    assert (scheme.source, scheme.float_fingerprint) == (str(tmp_path / "float"), model.fingerprint)
    assert load(folder).fingerprint == scheme.fingerprint != model.fingerprint


def test_size_on_disk_is_what_the_report_promises(tmp_path: Path) -> None:
    model = small_esm2(ESM2Config(num_layers=2, dim=320, num_heads=4, ffn_dim=1280))
    for bits in (3, 4, 8):
        form = {"format": "uniform", "bits": bits, "granularity": "group", "group_size": 64, "symmetric": False}
        quantized_model, report = quantized(model, {"kinds": {"linear_weight": form}})
        folder = save_quantized(quantized_model, report, tmp_path / str(bits))
        weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        assert weights == pytest.approx(report.weight_bytes, rel=0.02)
        assert sum(path.stat().st_size for path in folder.iterdir()) == pytest.approx(report.weight_bytes, rel=0.05)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8, 11, 16])
def test_codes_are_packed_without_waste(bits: int, tmp_path: Path) -> None:
    model, report = quantized(small_esm2(), {"kinds": {"linear_weight": {"format": "uniform", "bits": bits}}})
    packed = load_file(save_quantized(model, report, tmp_path / "model") / "layers.0.safetensors")[f"{NAME}.weight"]
    assert (packed.dtype, packed.numel()) == (torch.uint8, 128 * 64 * bits // 8)


def test_nothing_is_saved_of_what_could_not_be_loaded(tmp_path: Path) -> None:
    class Stranger(nn.Module):
        pass

    class Forgetful(Storable):
        def __init__(self) -> None:
            super().__init__()
            self.exponent = 3

    class Mistaken(Storable):
        names: tuple[str, ...]

        def __init__(self) -> None:
            super().__init__()
            self.names = ["a list"]  # type: ignore[assignment]

    def refused(model: ESM2, message: str) -> None:
        with pytest.raises(ProtquantError, match=message):
            save_quantized(model, report, tmp_path / "model")
        assert not list(tmp_path.iterdir())

    model, report = quantized(small_esm2(), "w8")
    assert isinstance(model, ESM2)
    for module, message in (
        (Stranger(), r"not saved, stream_entry: a .*Stranger cannot be saved: modules .* inherit from"),
        (Forgetful(), r"Forgetful\.exponent is not annotated in the body of its class"),
        (Mistaken(), r"Mistaken\.names is \['a list'\], which cannot be saved as tuple"),
    ):
        model.stream_entry = module
        refused(model, message)
    model.stream_entry = nn.Identity()
    model.layers[0].attn.scale = 0.5
    refused(model, "a SelfAttention cannot be saved")
    model, _ = quantized(small_esm2(), "w8")
    model.get_submodule(NAME).register_forward_hook(lambda *_: None)
    refused(model, f"{NAME}: this QuantizedLinear has a hook")


class Shift(InputTransform):
    """A transform of somebody's own, with all that the contract allows."""

    by: torch.Tensor
    names: tuple[str, ...]
    twice: bool
    limit: float

    def __init__(self, by: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("by", by)
        self.names, self.twice, self.limit = ("a", "b"), False, float("inf")
        self.restored()

    def restored(self) -> None:
        self._negative = -self.by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + self.by + self._negative).clamp(max=self.limit)

    def columns(self, weight: torch.Tensor) -> torch.Tensor:
        return weight


def test_what_follows_the_contract_is_saved_without_a_line_of_its_own(tmp_path: Path) -> None:
    model, report = quantized(small_esm2(), "w8")
    layer = model.get_submodule(NAME)
    layer.transforms = nn.Sequential(Shift(torch.randn(64)))
    loaded = load(save_quantized(model, report, tmp_path / "model"))
    assert_same(loaded, model)
    shift = loaded.get_submodule(f"{NAME}.transforms.0")
    assert isinstance(shift, Shift)
    assert (shift.names, shift.twice, shift.limit) == (("a", "b"), False, float("inf"))


def test_cast_to_half_precision_the_scales_stay_exact(quantized_esm2: Path) -> None:
    exact, half = load(quantized_esm2), load(quantized_esm2, dtype=torch.bfloat16)
    assert half.get_submodule(NAME).weight.dtype == torch.bfloat16
    scale = half.get_submodule(NAME).input_quantizer.quantizer.scale
    assert torch.equal(scale, exact.get_submodule(NAME).input_quantizer.quantizer.scale)
    torch.testing.assert_close(outputs(half)[1].float(), outputs(exact)[1], atol=0.1, rtol=0.1)


def test_a_model_in_half_precision_is_saved_in_it(tmp_path: Path) -> None:
    model, report = quantized(small_esm2().to(torch.bfloat16), W4A8)
    assert_same(load(save_quantized(model, report, tmp_path / "model"), dtype=torch.bfloat16), model)


def test_tensors_that_several_modules_share_are_saved_once(tmp_path: Path) -> None:
    model, report = quantized(small_esm2(), "w8")
    shared = torch.randn(64)
    for name in ("q_proj", "k_proj"):
        model.get_submodule(f"layers.0.attn.{name}").transforms = nn.Sequential(Shift(shared))
    folder = save_quantized(model, report, tmp_path / "model")
    assert sum(name.endswith(".by") for name in load_file(folder / "layers.0.safetensors")) == 1
    assert_same(load(folder), model)


def test_folder_is_replaced_only_if_asked_and_only_by_a_whole_one(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, report = quantized(small_esm2(), "w8")
    before = load(copied).fingerprint
    with pytest.raises(ProtquantError, match="already exists and is not empty"):
        save_quantized(model, report, copied)
    rename = Path.rename

    def fail_on_the_second(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_second)
    with pytest.raises(ProtquantError, match=r"cannot be written \(No space left on device\)"):
        save_quantized(model, report, copied, overwrite=True)
    monkeypatch.undo()
    assert load(copied).fingerprint == before
    save_quantized(model, report, copied, overwrite=True)
    assert read_scheme(copied).report.recipe.name == "w8"
    assert [path.name for path in copied.parent.iterdir()] == ["model"]


def test_which_folders_are_quantized(quantized_esm2: Path, tmp_path: Path) -> None:
    native = save_model(small_esm2(), tmp_path / "native")
    assert is_quantized(quantized_esm2)
    assert not is_quantized(native)
    assert scheme_of(native) is scheme_of("demo") is scheme_of("owner/name") is None
    scheme = scheme_of(quantized_esm2)
    assert scheme is not None
    assert scheme.report.recipe == Recipe.from_dict(json.loads((quantized_esm2 / "scheme.json").read_text())["recipe"])
