"""QLLM's reassembly: exact where it takes apart, and merging in the order of bipartite soft matching."""

import copy

import pytest
import torch
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.models import ESMFold, encode_complexes, tokenize
from protquant.quant import Examples, Recipe, quantize
from protquant.quant.assignments import Assignment, Assignments
from protquant.quant.evidence import Gatherer
from protquant.quant.formats import Uniform
from protquant.quant.layer_error import LayerOutputs
from protquant.quant.steps.qllm import ChannelReassembly, bipartite_groups, merging_distance, reassemble
from protquant.quant.transforms import LinkLayers, TransformedLinear
from protquant.sites import Site
from protquant.topology import Link, find_links

SEQUENCE = "MKTVRQERLKSIVRILERSK"
FORM = Uniform(bits=4, granularity="token", symmetric=False)


def evidence_of(rows: Tensor):
    gatherer = Gatherer(len(rows))
    gatherer.update(rows)
    return gatherer.evidence()


def assigned(paths: tuple[str, ...]) -> Assignments:
    weight = Uniform(bits=4, granularity="channel", symmetric=False)
    sites = [(Site(f"{path}.weight", "linear_weight", path), weight) for path in paths]
    sites += [(Site(f"{path}.input", "linear_input", path), FORM) for path in paths]
    return Assignments([Assignment(site, form, "test") for site, form in sites])


def test_the_distance_is_what_merging_two_channels_changes():
    torch.manual_seed(0)
    rows, weight = torch.randn(40, 5).double(), torch.randn(3, 5).double()
    distance = merging_distance(evidence_of(rows).gram, weight)
    for i, j in ((0, 1), (3, 2), (4, 0)):
        # Section 3.2: x_i W_i + x_j W_j becomes (x_i + x_j) / 2 (W_i + W_j).
        exact = rows[:, [i, j]] @ weight[:, [i, j]].T
        merged = rows[:, [i, j]].mean(1, keepdim=True) @ weight[:, [i, j]].sum(1, keepdim=True).T
        assert distance[i, j].item() == pytest.approx((exact - merged).square().sum(1).mean().item())
    assert distance.diagonal().abs().max() < 1e-12


def test_the_proxy_asks_for_alike_inputs_and_adds_up_weights():
    rows, weight = torch.tensor([[1.0, 3.0], [2.0, 1.0]]), torch.tensor([[1.0, 2.0], [-0.5, 4.0]])
    # Mean over tokens of (x_0 - x_1)^2 is 2.5, columns add up to 0.5 and 6.
    assert merging_distance(evidence_of(rows).gram, weight, "proxy")[0, 1].item() == pytest.approx(2.5 * 6.5**2)


def test_merge_order_is_that_of_bipartite_soft_matching_by_hand():
    # Even channels 0 2 4 6, odd 1 3 5. Nearest odd of each: 0 -> 3 (1), 2 -> 3 (5), 4 -> 1 (2), 6 -> 5 (3).
    distance = torch.full((7, 7), 9.0)
    for even, odd, value in ((0, 1, 4), (0, 3, 1), (2, 3, 5), (4, 1, 2), (4, 5, 6), (6, 5, 3), (6, 1, 8)):
        distance[even, odd] = distance[odd, even] = value
    free = torch.zeros(7, dtype=torch.bool)
    assert bipartite_groups(distance, free, 1).tolist() == [2, 0, 1, 2, 3, 4, 5]  # 0 into 3
    assert bipartite_groups(distance, free, 2).tolist() == [2, 0, 1, 2, 0, 3, 4]  # and 4 into 1
    assert bipartite_groups(distance, free, 3).tolist() == [2, 0, 1, 2, 0, 3, 3]  # and 6 into 5
    assert bipartite_groups(distance, free, 4).tolist() == [1, 0, 1, 1, 0, 2, 2]  # and 2 into 3, which has 0 already
    assert bipartite_groups(distance, free, 5) is None
    # 3 is split: 0 goes to its next, 1, which is farther than 4's and 6's; 2 has only what is far.
    split = torch.tensor([False, False, False, True, False, False, False])
    assert bipartite_groups(distance, split, 2).tolist() == [0, 1, 2, 3, 1, 4, 4]
    assert bipartite_groups(distance, split, 3).tolist() == [0, 0, 1, 2, 0, 3, 3]


def test_split_channels_are_never_merged_and_the_number_of_channels_stays():
    torch.manual_seed(1)
    rows, weight = torch.randn(60, 12), torch.randn(4, 12)
    counts = torch.tensor([1, 3, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1])
    merge, split = reassemble(counts, merging_distance(evidence_of(rows).gram, weight))
    sizes = merge.size[merge.group]
    assert sizes[[1, 4]].eq(1).all()
    assert split(merge(rows)).shape == rows.shape
    assert split.columns(merge.columns(weight)).shape == weight.shape
    assert (merge.size > 1).any()


@pytest.mark.parametrize("fold", [False, True], ids=["esm2", "esmfold"])
def test_outputs_stay_when_every_link_is_disassembled(esmfold: ESMFold, fold: bool):
    model = copy.deepcopy(esmfold if fold else esmfold.lm).double().eval()

    def outputs() -> list[Tensor]:
        with torch.no_grad():
            if fold:
                result = model(encode_complexes([SEQUENCE]), num_recycles=1)
                return [result.positions, result.plddt_logits, result.pae_logits]
            return [model.logits(tokenize([SEQUENCE])), model.contacts(tokenize([SEQUENCE]))]

    before = outputs()
    step = ChannelReassembly(layers=("*",), assembly=False, budget=0.5)
    for link in find_links(model):
        layers = LinkLayers(model, link)
        rows = torch.randn(50, next(iter(layers.readers.values())).in_features, dtype=torch.float64)
        rows[:, ::7] *= 9
        step.apply(layers, evidence_of(rows), assigned(link.readers))
    assert sum(isinstance(module, TransformedLinear) for module in model.modules()) >= 8
    for ours, theirs in zip(outputs(), before, strict=True):
        assert (ours - theirs).abs().max().item() <= 1e-5 * theirs.abs().max().item()


@pytest.mark.parametrize("assembly", [True, False])
def test_what_is_chosen_is_never_worse_on_the_sample_and_within_the_budget(assembly: bool):
    torch.manual_seed(2)
    rows = torch.randn(200, 40)
    rows[:, 3] *= 25
    rows[:, 10::2] = rows[:, 11::2] + 0.05 * torch.randn(200, 15)  # pairs that are alike
    model = torch.nn.Sequential(torch.nn.Linear(40, 16))
    outputs = LayerOutputs(evidence_of(rows), {"0": model[0]})
    formats = {"0": (assigned(("0",)).weight_format("0"), FORM)}
    plain = outputs.error([], formats)
    before = copy.deepcopy(model[0])
    step = ChannelReassembly(assembly=assembly)
    step.apply(LinkLayers(model, Link(("0",))), evidence_of(rows), assigned(("0",)))
    layer = model[0]
    assert isinstance(layer, TransformedLinear)
    assert outputs.error(list(layer.transforms), formats) < 0.5 * plain
    assert layer.in_features == 40 if assembly else 40 < layer.in_features <= 48
    if not assembly:
        assert torch.allclose(layer(rows), before(rows), atol=1e-5)


def test_output_projections_of_attention_are_left_as_they_are(encoder, tokens):
    form = {"format": "uniform", "bits": 4, "granularity": "token", "symmetric": False}
    kinds = {"linear_weight": {**form, "granularity": "channel"}, "linear_input": form}
    recipe = Recipe(kinds=kinds, steps=[{"step": "qllm_reassembly"}])
    quantized, _ = quantize(encoder, recipe, examples=Examples(tuple(tokens), lambda model, t: model(t)))
    transforms = {name: layer.transforms for name, layer in quantized.named_modules() if hasattr(layer, "transforms")}
    changed = {name for name, transform in transforms.items() if transform is not None}
    assert any(name.endswith("up_proj") for name in changed)
    assert not any(name.endswith("out_proj") for name in changed)
    step = ChannelReassembly()
    assert not step.is_for("lm.layers.3.attn.out_proj")
    assert not step.is_for("trunk.structure_module.ipa.out_proj")
    assert not step.is_for("trunk.blocks.0.tri_attn_start.out_proj")
    assert step.is_for("trunk.blocks.0.tri_mul_out.out_proj")


@pytest.mark.parametrize("settings", [{"distance": "far"}, {"budget": -1.0}, {"candidates": 0}])
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, object]):
    with pytest.raises(ProtquantError, match="qllm_reassembly"):
        ChannelReassembly(**settings)
