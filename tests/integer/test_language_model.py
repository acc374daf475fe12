"""ESM-2 on integers: what simulation gives, without padding."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor
from trained_weights import trained

from protquant.checkpoints import load
from protquant.integer.language_model import IntegerESM2
from protquant.integer.packed_sequences import PackedSequences
from protquant.integer.part import SupportRow
from protquant.kernels.backend import Backend
from protquant.kernels.code_attention import CodeAttention
from protquant.kernels.cpu import CPUBackend, features
from protquant.kernels.reference.backend import ReferenceBackend
from protquant.models import ESM2, ESM2Config, ESMFold
from protquant.models.alphabet import MASK, PAD, tokenize
from protquant.preparing import quantize
from protquant.quant import Recipe, load_recipe

SEQUENCES = ["MKTAYIAKQRQISFVKSHFSRQLEERLG", "GSHMLEDPVDAFKQWWTRLNEAYCPIHAMKV" * 3, "GIVEQCCTSICSLYQLENYCN", "MA"]
VARIANTS = ["operands with zero points", "output in float", "output flattened"]
RECIPES = ["w8a8-int8", "w8a8-uniform", "w8a8-token", "w4a8-uniform", "w4a8-gptq", "w4a8-dint", "w4a8-flattenquant"]

MakeBackend = Callable[[], Backend]


@cache
def float_model() -> ESM2:
    model = ESM2(ESM2Config(num_layers=2, dim=64, num_heads=4, ffn_dim=160)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        owner = model.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, torch.nn.LayerNorm):
            parameter.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))
        else:
            parameter.copy_(1.5 * noise * parameter.shape[-1] ** -0.5)
    return model


def recipe_of(name: str) -> Recipe:
    """A recipe by name; `VARIANTS` are others whose attention is on codes."""
    recipe = load_recipe({"output flattened": "w4a8-flattenquant"}.get(name, "w8a8-int8" if name in VARIANTS else name))
    if name == "operands with zero points":
        operand = replace(recipe.kinds["matmul_operand"], symmetric=False)
        return replace(recipe, kinds={**recipe.kinds, "matmul_operand": operand})
    if name == "output in float":
        return replace(recipe, exclude=[*recipe.exclude, "*.attn.out_proj.*"])
    if name == "output flattened":
        kept = ("linear_weight", "linear_input", "matmul_operand")
        return replace(recipe, kinds={kind: recipe.kinds[kind] for kind in kept})
    return recipe


@cache
def simulated(recipe: str) -> ESM2:
    return quantize(float_model(), recipe_of(recipe), SEQUENCES, execution="simulate", cache=False)[0].eval()


def on_integers(recipe: str, backend: Backend, dtype: torch.dtype | None = None) -> IntegerESM2:
    return IntegerESM2(copy.deepcopy(simulated(recipe)), backend, dtype=dtype)


def batch() -> tuple[Tensor, Tensor]:
    tokens = tokenize(SEQUENCES)
    tokens[1, 5:8] = MASK
    return tokens, tokens.ne(PAD)


def alone(model: ESM2) -> Tensor:
    """Hidden states of each sequence without padding: a quantizer that looks at a row of logits would see that."""
    tokens, valid = batch()
    rows = [model(row[real][None], return_hidden=True).hidden[0] for row, real in zip(tokens, valid, strict=True)]
    return torch.cat(rows)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def layer_distances(quantized: ESM2, of_float: ESM2, integer: IntegerESM2) -> list[tuple[float, float]]:
    """How far each layer's update is from that of the simulation, and that from the float layer's, for one input.

    Layer by layer: a code that falls the other way at a tie moves others later on, as any rounding does.
    """
    distances = []
    for index, (layer, twin) in enumerate(zip(quantized.layers, integer.layers, strict=True)):
        ours, theirs, exact = [], [], []
        for sequence in SEQUENCES:
            tokens = tokenize([sequence])
            x = quantized(tokens, return_hidden=True).hidden[:, :, index]
            ours.append(run_layer(integer, twin, x[0].clone()) - x[0])
            theirs.append((layer(x, tokens.eq(PAD))[0] - x)[0])
            exact.append((of_float.layers[index](x, tokens.eq(PAD))[0] - x)[0])
        update = torch.cat(theirs)
        distances.append((distance(torch.cat(ours), update), distance(update, torch.cat(exact))))
    return distances


def run_layer(model: IntegerESM2, layer: torch.nn.Module, x: Tensor) -> Tensor:
    packed = PackedSequences(torch.ones(1, len(x), dtype=torch.bool))
    layer(x, packed.tiles(None), model._rotary_factors(packed.positions))
    return x


@pytest.mark.parametrize("make", [ReferenceBackend, CPUBackend])
@pytest.mark.parametrize("recipe", [*RECIPES, *VARIANTS])
def test_a_layer_gives_what_its_simulation_gives(recipe: str, make: MakeBackend):
    integer = on_integers(recipe, make(), dtype=torch.float32)
    for ours, quantization in layer_distances(simulated(recipe), float_model(), integer):
        assert ours < 0.05 * quantization


@pytest.mark.parametrize("recipe", VARIANTS)
def test_variants_attend_on_codes_and_differ_as_they_should(recipe: str):
    attn = on_integers(recipe, ReferenceBackend()).layers[1].attn
    assert isinstance(attn.products, CodeAttention)
    assert (len(set(attn.products.step_grids)) == 3) == (recipe == "operands with zero points")
    assert (attn.out is None) == (recipe == "output in float")
    assert (attn.value_scale == 1) == (recipe == "operands with zero points")


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_model_is_as_near_the_float_model_as_its_simulation(recipe: str):
    tokens, valid = batch()
    integer = on_integers(recipe, CPUBackend(), dtype=torch.float32)
    expected, exact = alone(simulated(recipe)), alone(float_model())
    hidden = integer(tokens, return_hidden=True).hidden[valid]
    assert distance(hidden, expected) < 0.1 * distance(expected, exact)
    assert distance(hidden, exact) < 1.01 * distance(expected, exact)


def test_a_trained_model_gives_what_its_simulation_gives():
    """Its channels differ in size by far, so that one code at a tie, one step on, is seen: few tokens differ at all."""
    model = load(trained("esm2_8m_finetuned")).requires_grad_(False)
    quantized = quantize(model, "w8a8-int8", SEQUENCES, execution="simulate", cache=False)[0].eval()
    integer = IntegerESM2(copy.deepcopy(quantized), CPUBackend(), dtype=torch.float32)
    for ours, quantization in layer_distances(quantized, model, integer):
        assert ours < 0.5 * quantization
    tokens, valid = batch()
    ours, simulation, exact = (each.logits(tokens)[valid] for each in (integer, quantized, model))
    # Over all layers a code at a tie moves others: with another number of threads sums differ, and 1.11 was seen.
    assert distance(ours, exact) < 1.2 * distance(simulation, exact)


@pytest.mark.parametrize(
    ("backend", "kernel", "calls"),
    [
        (CPUBackend(replace(features(), int_mm=False)), "torch SDPA, float32", 4),  # neighbors of one length
        (ReferenceBackend(), "reference", 2),  # 14 and 9 tokens are padded, but not 3
    ],
)
def test_sequences_of_one_length_attend_in_one_call(backend: Backend, kernel: str, calls: int):
    sequences = [SEQUENCES[1][:length] for length in (7, 7, 7, 12, 7, 1, 1)]
    integer = on_integers("w8a8-int8", backend, dtype=torch.float32)
    found = integer.logits(tokenize(sequences))
    assert backend.calls["attention", kernel] == calls * 2  # layers
    for sequence, logits in zip(sequences, found, strict=True):
        expected = integer.logits(tokenize([sequence]))[0]
        torch.testing.assert_close(logits[: len(expected)], expected, rtol=1e-4, atol=1e-4)


def test_attention_in_bfloat16_is_as_near_the_float_model():
    """It rounds what a head gives before that is rounded to its grid: some codes are a step off, none of them worse."""
    tokens, valid = batch()
    expected, exact = alone(simulated("w8a8-int8")), alone(float_model())
    for backend in (CPUBackend(), ReferenceBackend()):
        integer = on_integers("w8a8-int8", backend, dtype=torch.bfloat16)
        hidden = integer(tokens, return_hidden=True).hidden[valid]
        assert 0 < distance(hidden, expected) < 0.8 * distance(expected, exact)
        assert distance(hidden, exact) < 1.1 * distance(expected, exact)


@pytest.mark.parametrize("recipe", ["w8a8-int8", "w8a8-token"])
def test_a_sequence_does_not_see_the_padding_of_its_batch(recipe: str):
    integer = on_integers(recipe, CPUBackend())
    tokens, valid = batch()
    together = integer.logits(tokens)
    for row, real, logits in zip(tokens, valid, together, strict=True):
        torch.testing.assert_close(integer.logits(row[real][None])[0], logits[real], rtol=1e-4, atol=1e-4)
    assert not together[~valid].any() and not integer(tokens).last_hidden[~valid].any()


def test_padding_may_be_anywhere():
    """Inside a sequence it takes up positions, as it does in the float model; alone, it is no sequence."""
    tokens, _ = batch()
    tokens = torch.cat((torch.full((len(tokens), 3), PAD), tokens), dim=1)
    tokens[0, 10:14] = PAD
    tokens[3] = PAD
    quantized = simulated("w8a8-int8")
    integer = on_integers("w8a8-int8", CPUBackend(), dtype=torch.float32)
    valid = tokens.ne(PAD)
    ours, expected, exact = (m.logits(tokens[:3])[valid[:3]] for m in (integer, quantized, float_model()))
    assert distance(ours, expected) < 0.3 * distance(expected, exact)
    assert not integer.logits(tokens)[3].any()
    assert integer.logits(tokens[3:]).shape == (1, tokens.shape[1], 33)
    assert integer.logits(tokens[:0]).shape == (0, tokens.shape[1], 33)


def test_hidden_states_are_kept_only_if_asked_for():
    integer = on_integers("w8a8-int8", CPUBackend())
    tokens, valid = batch()
    plain, full = integer(tokens), integer(tokens, return_hidden=True)
    assert plain.hidden is None and plain.attentions is None and full.hidden is not None
    assert full.hidden.shape == (*tokens.shape, 3, 64)
    assert torch.equal(full.hidden[:, :, -1], full.last_hidden) and torch.equal(plain.last_hidden, full.last_hidden)
    torch.testing.assert_close(full.hidden[:, :, 0][valid], float_model().embed(tokens)[valid])


@pytest.mark.parametrize("recipe", ["w8a8-int8", "w8a8-uniform"])
def test_contacts_and_attention_are_those_of_the_simulation(recipe: str):
    tokens = tokenize(SEQUENCES[:1] * 2)
    quantized = simulated(recipe)
    for backend in (CPUBackend(), ReferenceBackend()):
        integer = on_integers(recipe, backend)
        torch.testing.assert_close(integer.contacts(tokens), quantized.contacts(tokens), rtol=1e-3, atol=1e-3)
        ours = integer(tokens, return_attentions=True).attentions
        torch.testing.assert_close(ours, quantized(tokens, return_attentions=True).attentions, rtol=1e-3, atol=1e-3)


def test_what_runs_on_integers_is_said():
    backend = CPUBackend()
    integer = IntegerESM2(copy.deepcopy(simulated("w8a8-int8")), backend, "lm")
    assert [row.path for row in integer.rows if row.runs == "simulated"] == [
        "lm.lm_head.dense",
        "lm.contact_head.regression",
    ]
    assert SupportRow("lm.layers.1.ffn.down_proj", "integer", backend.kernel) in integer.rows
    integer.logits(batch()[0])
    if features().int_mm:
        assert backend.calls["attention", "int8 queries and keys"] == 2 * (len(SEQUENCES) - 1)
        assert sum(count for (what, _), count in backend.calls.items() if what == "attention") == 2 * len(SEQUENCES)
    assert sum(count for (what, _), count in backend.calls.items() if what == "linear") == 2 * 4


def test_what_stays_simulated_is_said():
    backend = CPUBackend()
    integer = on_integers("w8a8-uniform", backend)
    said = {row.path: row.what for row in integer.rows if row.runs == "simulated"}
    assert "logits are quantized" in said["layers.0.attn.products"]
    integer.logits(batch()[0])
    assert backend.calls["attention", "simulated"] == 2 * len(SEQUENCES)
    integer = on_integers("w8a8-pwlq", backend)
    said = {row.path: row.what for row in integer.rows if row.runs == "simulated"}
    assert "9 bits" in said["layers.1.ffn.up_proj"]


def test_weights_of_four_bits_stay_packed():
    integer = on_integers("w4a8-uniform", CPUBackend())
    for layer in integer.layers:
        for part in (layer.attn.qkv, layer.attn.out, layer.ffn.up, layer.ffn.down):
            rows, columns = part.weight.out_features, part.weight.in_features
            assert part.nbytes <= rows * columns / 2 + 13 * rows  # scale, zero point, and steps of the output grid
            assert part.weight.codes.dtype == torch.uint8
            assert part.weight.codes.numel() * 2 == part.weight.out_features * part.weight.in_features


def test_it_takes_the_place_of_the_language_model_of_a_folding_model(esmfold: ESMFold):
    quantized = quantize(esmfold, "w8a8-int8", SEQUENCES[:2], execution="simulate", cache=False)[0].eval()
    torch.manual_seed(0)  # one protein in eight has a code at a tie, which falls the other way
    aatype = torch.randint(0, 20, (2, 17))
    mask = torch.arange(17) < torch.tensor([[17], [9]])
    expected = quantized.language_model_hidden(aatype, mask)
    lm = quantized.lm
    quantized.lm = IntegerESM2(lm, CPUBackend(), "lm", dtype=torch.float32)
    assert quantized.lm.source == lm.source and quantized.lm.config == lm.config
    torch.testing.assert_close(
        quantized.language_model_hidden(aatype, mask)[mask], expected[mask], rtol=1e-3, atol=1e-3
    )
