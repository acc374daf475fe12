"""A quantized model that is made to run on integers: near its simulation, and open about what is not on integers."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from protquant.checkpoints import save_quantized
from protquant.errors import ProtquantError
from protquant.integer import Support, to_integer
from protquant.kernels.cpu import features
from protquant.kernels.reference.backend import ReferenceBackend
from protquant.models import ESM2, ESMFold, encode_complexes, tokenize
from protquant.preparing import quantize
from protquant.quant import QuantizedLinear, Recipe

SEQUENCES = ["MKTAYIAKQRQISFVKSHFSRQLEERLG", "GIVEQCCTSICSLYQLENYCN"]
# W8A8 but for one layer that an integer kernel cannot read, and one that it can and that does not fit to its neighbors.
MIXED = {
    "name": "mixed",
    "calibration": {"range": "minmax"},
    "kinds": {
        "linear_weight": {"format": "uniform", "bits": 8, "granularity": "channel"},
        "linear_input": {"format": "uniform", "bits": 8, "symmetric": False},
        "matmul_operand": {"format": "uniform", "bits": 8},
    },
    "sites": {
        "trunk.blocks.0.pair_transition.up_proj.input": {"format": "piecewise_linear", "bits": 8},
        "trunk.blocks.1.tri_attn_end.q_proj.weight": {"format": "uniform", "bits": 4, "granularity": "channel"},
    },
}


@pytest.fixture(scope="module", autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def simulated(esmfold: ESMFold) -> ESMFold:
    return simulate(esmfold, "w8a8-int8")


def simulate(model: ESMFold, recipe: str | Recipe) -> ESMFold:
    return quantize(model, recipe, SEQUENCES, execution="simulate", cache=False)[0]


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def parts(support: Support, runs: str) -> dict[str, str]:
    return {row.path: row.what for row in support.rows if row.runs == runs}


@pytest.mark.parametrize(("backend", "share"), [("reference", 0.01), ("cpu", 0.5)])
def test_a_block_gives_what_its_simulation_gives(esmfold: ESMFold, simulated: ESMFold, backend: str, share: float):
    """To the rounding of float32, or of the bfloat16 that attention on CPUs is reckoned in."""
    exact, block = esmfold.trunk.blocks[0], simulated.trunk.blocks[0]
    running, support = to_integer(block, backend)
    assert support.rows
    assert not support.simulated
    generator = torch.Generator().manual_seed(0)
    single, pair = torch.randn(2, 19, 32, generator=generator), torch.randn(2, 19, 19, 16, generator=generator)
    mask = torch.arange(19).expand(2, -1) < torch.tensor([[19], [13]])
    given, wanted, ours = (model(single.clone(), pair.clone(), mask) for model in (exact, block, running))
    inside = mask[:, :, None] & mask[:, None, :]
    for valid, before, simulation, integer in zip((mask, inside), given, wanted, ours, strict=True):
        lost = distance(simulation[valid], before[valid])
        assert lost > 0.01
        assert distance(integer[valid], simulation[valid]) < share * lost


@pytest.mark.parametrize(("backend", "share"), [("reference", 0.3), ("cpu", 0.8)])
def test_a_language_model_gives_what_its_simulation_gives(
    esmfold: ESMFold, simulated: ESMFold, backend: str, share: float
):
    """To a step here and there, of what is rounded to bfloat16 and then to eight bits on CPUs."""
    tokens = tokenize(SEQUENCES[:1])
    running, _ = to_integer(simulated.lm, backend)
    assert isinstance(running, ESM2)
    wanted = simulated.lm.logits(tokens)
    assert distance(running.logits(tokens), wanted) < share * distance(wanted, esmfold.lm.logits(tokens))
    torch.testing.assert_close(running.contacts(tokens), simulated.lm.contacts(tokens), atol=0.02, rtol=0)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_folding_model_is_as_near_as_quantization_is_to_float(esmfold: ESMFold, simulated: ESMFold, backend: str):
    """The weights are random: what falls the other way at a tie moves more from block to block."""
    running, support = to_integer(simulated, backend)
    batch = encode_complexes(SEQUENCES)
    exact, wanted, ours = (model(batch, 0) for model in (esmfold, simulated, running))
    assert support.backend.calls["linear", "reference" if backend == "reference" else features().product] > 0
    pairs = batch.mask[:, :, None] & batch.mask[:, None, :]
    # What stands in the padding is nobody's business, and is not the same.
    for name, valid in (("single", batch.mask), ("pair", pairs), ("plddt_logits", batch.mask)):
        floats, simulation, integer = (getattr(output, name)[valid] for output in (exact, wanted, ours))
        assert distance(integer, simulation) < distance(simulation, floats), name


def test_what_has_no_kernel_is_named_and_the_rest_is_on_integers(esmfold: ESMFold):
    _, support = to_integer(simulate(esmfold, Recipe.from_dict(MIXED)), "reference")
    left = parts(support, "simulated")
    assert left["trunk.blocks.0.pair_transition.up_proj"] == "trunk.blocks.0.pair_transition.up_proj.input has 9 bits"
    assert "different formats" in left["trunk.blocks.1.tri_attn_end"]
    running = parts(support, "integer")
    assert {f"trunk.blocks.1.tri_attn_end.{name}_proj" for name in ("q", "k", "v", "out")} <= set(running)
    assert "trunk.blocks.0.pair_transition.down_proj" in running
    assert "trunk.blocks.1.pair_transition" in running
    assert set(running.values()) >= {ReferenceBackend().kernel}
    assert not set(running) & set(left)


def test_a_layer_without_a_kernel_is_simulated_as_before(esmfold: ESMFold):
    quantized = simulate(esmfold, "w8")
    running, support = to_integer(quantized, "reference")
    assert support.simulated == support.rows
    assert all(what.endswith("in float") for path, what in parts(support, "simulated").items() if "_proj" in path)
    tokens = tokenize(SEQUENCES[:1])
    torch.testing.assert_close(running.lm.logits(tokens), quantized.lm.logits(tokens))


def test_the_summary_says_how_much_by_which_kernel_and_what_is_left(esmfold: ESMFold, simulated: ESMFold):
    _, whole = to_integer(simulated, "reference")
    _, mixed = to_integer(simulate(esmfold, Recipe.from_dict(MIXED)), "reference")
    assert f"of {len(whole.rows)} parts on integers ({ReferenceBackend().kernel})" in whole.summary()
    assert f"{len(mixed.rows) - len(mixed.simulated)} of {len(mixed.rows)} parts" in mixed.summary()
    assert f"simulated in float: {mixed.simulated[0].path} ({mixed.simulated[0].what})" in mixed.summary()
    assert mixed.to_dicts()[0].keys() == {"path", "runs", "what"}


def test_weights_take_a_byte_each_and_their_scales(simulated: ESMFold):
    _, support = to_integer(simulated, "reference")
    layers = {path: m for path, m in simulated.named_modules() if isinstance(m, QuantizedLinear) and "head" not in path}
    elements = sum(layer.weight.numel() for layer in layers.values())
    scales = sum(4 * layer.out_features for layer in layers.values())
    assert support.weight_elements == elements
    assert support.weight_bytes == elements + scales


def test_the_model_stays_as_it_is_unless_it_is_changed_in_place(simulated: ESMFold):
    model = copy.deepcopy(simulated)
    running, _ = to_integer(model, "reference")
    assert any(isinstance(module, QuantizedLinear) for module in model.modules())
    changed, _ = to_integer(model, "reference", inplace=True)
    assert changed is model
    assert not any(isinstance(module, QuantizedLinear) for module in model.trunk.modules())
    batch = encode_complexes(SEQUENCES[:1])
    assert torch.equal(running(batch, 0).positions, changed(batch, 0).positions)


def test_what_is_not_quantized_is_refused(esmfold: ESMFold):
    with pytest.raises(ProtquantError, match="the model is not quantized: quantize it by a recipe"):
        to_integer(esmfold)


def test_a_backend_that_is_not_known_is_refused_with_those_that_are(simulated: ESMFold):
    with pytest.raises(ProtquantError, match="'cuda' is none of auto, reference, cpu, triton"):
        to_integer(simulated, "cuda")


def test_triton_is_refused_on_a_cpu(simulated: ESMFold, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ProtquantError, match="backend triton"):
        to_integer(simulated, "triton")


def test_a_model_on_integers_is_not_saved(esmfold: ESMFold, tmp_path: Path):
    running, report = quantize(esmfold, "w8a8-int8", SEQUENCES, cache=False)
    with pytest.raises(ProtquantError, match="was made to run on integers; save what"):
        save_quantized(running, report, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_runs_on_integers_is_not_converted_again(simulated: ESMFold):
    running, _ = to_integer(simulated, "reference")
    with pytest.raises(ProtquantError, match="runs on integers already"):
        to_integer(running)


def test_a_trunk_in_half_precision_is_refused_by_name(simulated: ESMFold):
    half = copy.deepcopy(simulated).set_compute_dtype(torch.bfloat16)
    with pytest.raises(ProtquantError, match=r"trunk\.blocks\.0 is in bfloat16.*--dtype float32"):
        to_integer(half)
