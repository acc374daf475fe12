"""FlattenQuant: exact in float, within its budget, better than it was, and bits that follow what is let pass."""

import copy

import pytest
import torch
from torch import nn

from protquant.errors import ProtquantError
from protquant.models import ESM2, ESMFold, encode_complexes, tokenize
from protquant.quant import Examples, Recipe, calibrate, quantize
from protquant.quant.assignments import Assignment, Assignments
from protquant.quant.channel_splitting import EqualSplit, SaturatingSplit, pieces_at, thresholds_within
from protquant.quant.evidence import Evidence, Gatherer
from protquant.quant.formats import Uniform
from protquant.quant.layer_error import relative_error
from protquant.quant.steps.flattenquant import FlattenQuant, box_plot_fence
from protquant.quant.transforms import LinkLayers, TransformedLinear
from protquant.sites import Site
from protquant.topology import Link, find_links

SEQUENCE = "MKTVRQERLKSIVRILERSK"
PER_TENSOR = {"format": "uniform", "bits": 8, "granularity": "tensor"}
ONLY_LINEAR = {"linear_weight": PER_TENSOR, "linear_input": PER_TENSOR}


def run(model: ESM2, tokens: torch.Tensor) -> object:
    return model(tokens)


def recipe(width: int = 4, **settings: object) -> Recipe:
    kinds = {kind: {**form, "bits": width} for kind, form in ONLY_LINEAR.items()}
    return Recipe(kinds=kinds, steps=[{"step": "flattenquant", **settings}])


def outlying(number: int = 600) -> tuple[nn.Module, Evidence]:
    """A layer that reads 512 Gaussian channels, two of them 30 and 20 times as large, and what it reads."""
    generator = torch.Generator().manual_seed(7)
    rows = torch.randn(number, 512, generator=generator)
    rows[:, 100] *= 30
    rows[:, 300] *= 20
    model = nn.Sequential(nn.Linear(512, 64, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(64, 512, generator=generator))
    gatherer = Gatherer(number)
    gatherer.update(rows)
    evidence = gatherer.evidence()
    assert evidence is not None
    return model, evidence


def assigned(bits: int) -> Assignments:
    form = Uniform(bits=bits)
    weight, read = Site("0.weight", "linear_weight", "0"), Site("0.input", "linear_input", "0")
    return Assignments([Assignment(weight, form, "test"), Assignment(read, form, "test")])


def test_the_toy_result_of_two_outlier_channels():
    # Error of outputs relative to them, activations quantized only, 34 channels more: figures of the digest of papers,
    # for 34 pieces of these two channels; another draw of the Gaussians moves them by some percent.
    model, evidence = outlying()
    rows, weight = evidence.rows, model[0].weight.detach()
    maximum = evidence.absolute_maximum
    threshold = thresholds_within(maximum, 34)[-1]
    counts = pieces_at(maximum, threshold)
    assert counts.sum() <= 512 + 34
    expected = {
        8: {"plain": 0.127, "equal": 0.0097, "saturating": 0.0064},
        4: {"plain": 0.542, "equal": 0.177, "saturating": 0.115},
    }
    for bits, errors in expected.items():
        form = Uniform(bits=bits)
        found = {"plain": form.fit(*rows.aminmax())(rows) @ weight.T}
        splits = {"equal": EqualSplit.of(counts), "saturating": SaturatingSplit.of(counts, threshold)}
        for name, split in splits.items():
            pieces = split(rows)
            found[name] = form.fit(*pieces.aminmax())(pieces) @ split.columns(weight).T
        for name, error in errors.items():
            assert relative_error(found[name], rows @ weight.T) ** 0.5 == pytest.approx(error, rel=0.2), (bits, name)


@pytest.mark.parametrize("fold", [False, True], ids=["esm2", "esmfold"])
@pytest.mark.parametrize("split", ["saturating", "equal"])
def test_outputs_stay_when_every_link_is_flattened(esmfold: ESMFold, fold: bool, split: str):
    model = copy.deepcopy(esmfold if fold else esmfold.lm).double().eval()

    def outputs() -> list[torch.Tensor]:
        with torch.no_grad():
            if fold:
                result = model(encode_complexes([SEQUENCE]), num_recycles=1)
                return [result.positions, result.plddt_logits, result.pae_logits]
            return [model.logits(tokenize([SEQUENCE])), model.contacts(tokenize([SEQUENCE]))]

    before = outputs()
    step = FlattenQuant(split=split, threshold="fence", budget=0.5, tiles=True)
    form = Uniform(bits=4)
    for link in find_links(model):
        layers = LinkLayers(model, link)
        gatherer = Gatherer()
        generator = torch.Generator().manual_seed(1)
        channels = next(iter(layers.readers.values())).in_features
        rows = torch.randn(50, channels, generator=generator, dtype=torch.float64)
        rows[:, ::7] *= 9
        gatherer.update(rows)
        sites = [Site(f"{p}.{end}", f"linear_{end}", p) for p in link.readers for end in ("weight", "input")]
        step.apply(layers, gatherer.evidence(), Assignments([Assignment(site, form, "test") for site in sites]))
    split_layers = [module for module in model.modules() if isinstance(module, TransformedLinear)]
    assert len(split_layers) >= 8
    assert all(layer.in_features % 64 == 0 for layer in split_layers)
    for ours, theirs in zip(outputs(), before, strict=True):
        assert (ours - theirs).abs().max().item() <= 1e-5 * theirs.abs().max().item()


@pytest.mark.parametrize("threshold", ["output_error", "fence"])
@pytest.mark.parametrize("budget", [0.0, 0.05, 0.3])
def test_the_budget_of_channels_is_kept(threshold: str, budget: float):
    model, evidence = outlying()
    step = FlattenQuant(threshold=threshold, budget=budget, alpha=0.0)
    step.apply(LinkLayers(model, Link(("0",))), evidence, assigned(4))
    assert model[0].in_features <= 512 * (1 + budget)
    assert (model[0].in_features > 512) == (budget > 0)


def test_the_fence_is_a_box_plots():
    assert box_plot_fence(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])) == 4 + 1.5 * 2


def test_flattening_brings_a_quantized_model_nearer_to_the_float_one(encoder, tokens):
    def drift(recipe: Recipe) -> float:
        quantized, _ = quantize(encoder, recipe, examples=Examples(tuple(tokens), run))
        with torch.no_grad():
            pairs = [(quantized(t).last_hidden, encoder(t).last_hidden) for t in tokens]
        return sum(relative_error(ours[0], theirs[0]) for ours, theirs in pairs)

    plain = drift(Recipe(kinds=recipe(6).kinds))
    assert drift(recipe(6, budget=0.3)) < plain


def test_more_is_done_in_few_bits_where_more_error_is_let_pass(encoder, tokens):
    shares = []
    for gamma in (0.0, 0.01, 0.013, 0.016, 0.02, 0.025, 10.0):
        _, report = quantize(encoder, recipe(8, bits=[4, 8], gamma=gamma), examples=Examples(tuple(tokens), run))
        shares.append(report.compute_share(4))
        assert report.compute_share(8) == 1
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert len(set(shares)) > 2


def test_a_report_says_how_much_is_computed_in_which_bits(encoder, tokens):
    few = {**PER_TENSOR, "bits": 4}
    sites = {f"layers.0.ffn.{layer}.{end}": few for layer in ("up_proj", "down_proj") for end in ("weight", "input")}
    mixed = Recipe(kinds=ONLY_LINEAR, sites={**sites, "layers.1.attn.q_proj.weight": few})
    _, report = quantize(encoder, mixed, calibrate(encoder, tokens))
    # 2 of 2 x (4 x 32^2 + 2 x 32 x 64) multiply-accumulates per token; a weight alone in 4 bits is no such compute.
    assert report.compute_share(4) == pytest.approx(2 * 32 * 64 / (2 * (4 * 32**2 + 2 * 32 * 64)))
    assert "25.0% in 4, 75.0% in 8 bits" in str(report)
    _, uniform = quantize(encoder, Recipe(kinds=ONLY_LINEAR), calibrate(encoder, tokens))
    assert "compute" not in str(uniform)
    assert quantize(encoder, "w4")[1].compute_share(4) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "half"}, "split 'half'"),
        ({"threshold": "mean"}, "threshold 'mean'"),
        ({"divergence": "l1"}, "divergence 'l1'"),
        ({"alpha": 2.0}, "alpha"),
        ({"budget": -0.1}, "budget"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, object], message: str):
    with pytest.raises(ProtquantError, match=message):
        FlattenQuant(**settings)


def test_bits_are_not_chosen_of_a_format_that_has_none(encoder, tokens):
    kinds = {"linear_input": {"format": "piecewise_linear", "bits": 8}}
    with pytest.raises(ProtquantError, match=r"attn\.q_proj.*leave out the setting bits"):
        quantize(
            encoder,
            Recipe(kinds=kinds, steps=[{"step": "flattenquant", "bits": [4, 8]}]),
            examples=Examples(tuple(tokens), run),
        )
