"""One part of a model is quantized at a time, as its quantized twin would be, and the model is what it was."""

import pytest
import torch
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.models import ESM2
from protquant.quant import Recipe, Statistics, Uniform, model_hash, quantize
from protquant.quant.in_place import quantized_in_place
from protquant.quant.ranges import Calibration
from protquant.quant.sensitivity import FormatTrials, fitting_format, group_sites
from protquant.sites import Site, find_sites

CHANNEL = Uniform(3, symmetric=True, granularity="channel")
TENSOR = Uniform(4, symmetric=True, full_range=True)
CALIBRATION = Calibration("minmax")


def sites_of(model: ESM2) -> list[Site]:
    return [site for site in find_sites(model) if site.kind != "norm_gain" and "_head" not in site.name]


def drift(answer: Tensor, float_answer: Tensor) -> dict[str, float]:
    return {"mse": (answer - float_answer).square().mean().item()}


@torch.no_grad()
def run(model: ESM2, tokens: Tensor) -> Tensor:
    return model.logits(tokens)


def trials(model: ESM2, groups, tokens: list[Tensor], statistics: dict[str, Statistics]):
    trial = FormatTrials(model, tokens, run, drift, statistics=statistics, calibration=CALIBRATION)
    return [trial(group, CHANNEL if group.is_weight else TENSOR) for group in groups]


def test_the_model_is_the_same_to_the_bit_afterwards(encoder: ESM2, tokens, statistics):
    before, answer = model_hash(encoder), run(encoder, tokens[0])
    parameters = {name: id(parameter) for name, parameter in encoder.named_parameters()}
    trials(encoder, group_sites(encoder, sites_of(encoder), "kind"), tokens[:1], statistics)
    assert model_hash(encoder) == before
    assert torch.equal(run(encoder, tokens[0]), answer)
    assert {name: id(parameter) for name, parameter in encoder.named_parameters()} == parameters
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in encoder.modules())


def fail(model: ESM2, before: str) -> None:
    assert model_hash(model) != before
    raise ProtquantError("the input has a NaN")


def test_the_model_is_restored_when_something_fails(encoder: ESM2):
    before = model_hash(encoder)
    site = next(site for site in sites_of(encoder) if site.is_weight)
    weight = encoder.get_submodule(site.module).weight
    with pytest.raises(ProtquantError, match="NaN"), quantized_in_place(encoder, {site: CHANNEL.for_weight(weight)}):
        fail(encoder, before)
    assert model_hash(encoder) == before


@pytest.mark.parametrize(
    "name",
    ["layers.0.attn.k_proj.weight", "layers.1.ffn.up_proj.input", "layers.1.attn_norm.input", "layers.0.attn.logits"],
)
def test_a_site_is_quantized_as_its_twin_is(encoder: ESM2, tokens, statistics, name: str):
    form = CHANNEL if name.endswith("weight") else TENSOR
    recipe = Recipe(calibration=CALIBRATION, sites={name: form.to_config()})
    twin, report = quantize(encoder, recipe, statistics)
    site = next(site for site in find_sites(encoder) if site.name == name)
    (trial,) = trials(encoder, group_sites(encoder, [site], "site"), tokens, statistics)
    expected = [drift(run(twin, each), run(encoder, each))["mse"] for each in tokens]
    assert trial.drift["mse"] == pytest.approx(sum(expected) / 3, rel=1e-6)
    assert trial.drift["mse"] > 0
    (line,) = [each for each in report.sites if each.site == name]
    assert trial.bits == pytest.approx(line.effective_bits)
    assert trial.elements == line.elements


def test_groups_share_all_sites_among_them(encoder: ESM2):
    sites = sites_of(encoder)
    for by, count in {"block": 4, "module": 12, "kind": 12, "site": len(sites)}.items():
        inside = [site for site in sites if site.name.startswith("layers.")]
        groups = group_sites(encoder, inside, by)
        assert sorted(site.name for group in groups for site in group.sites) == sorted(s.name for s in inside)
        assert len({group.name for group in groups}) == len(groups)
        assert all(len({site.is_weight for site in group.sites}) == 1 for group in groups)
        if by in ("block", "kind"):
            assert len(groups) == count
    names = [group.name for group in group_sites(encoder, sites, "module")]
    assert {"layers.1.attn weights", "layers.1.ffn activations", "final_norm activations"} <= set(names)


def test_parts_are_alike_in_all_blocks(encoder: ESM2):
    groups = group_sites(encoder, sites_of(encoder), "site")
    first, second = ({g.part for g in groups if g.block == f"layers.{i}"} for i in range(2))
    assert first == second


def test_groups_that_do_not_divide_rows_are_made_smaller():
    form = Uniform(4, symmetric=False, granularity="group", group_size=64)
    assert fitting_format(form, torch.zeros(8, 128)) == form
    assert fitting_format(form, torch.zeros(8, 160)) == Uniform(4, False, "group", 32)
    assert fitting_format(form, torch.zeros(8, 60)) == Uniform(4, False, "channel")
    assert fitting_format(CHANNEL, torch.zeros(8, 60)) == CHANNEL


def test_what_cannot_be_is_said(encoder: ESM2, statistics):
    with pytest.raises(ProtquantError, match="grouped by site, module, kind, block, not 'layer'"):
        group_sites(encoder, sites_of(encoder), "layer")
    with pytest.raises(ProtquantError, match="no sequences"):
        trials(encoder, group_sites(encoder, sites_of(encoder)[:1], "site"), [], statistics)
    activations = [site for site in sites_of(encoder) if not site.is_weight]
    with pytest.raises(ProtquantError, match=r"site layers.0.attn_norm.input: a frozen scale needs calibration"):
        trials(encoder, group_sites(encoder, activations, "site"), [torch.zeros(1, 4, dtype=torch.long)], {})
