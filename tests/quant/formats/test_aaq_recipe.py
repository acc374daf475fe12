"""Which of LightNobel's groups every site of the recipe `aaq` is in."""

from pathlib import Path

import pytest

from protquant.checkpoints import load
from protquant.quant import TokenOutlier, needs_sequences, plan, quantize

GROUPS = {TokenOutlier(8, 4): "A", TokenOutlier(4, 4): "B", TokenOutlier(4, 0): "C", None: "float"}


@pytest.fixture(scope="module")
def folding_groups(esmfold_checkpoint: Path) -> dict[str, str]:
    return {a.site.name: GROUPS[a.format] for a in plan(load(esmfold_checkpoint), "aaq")}


@pytest.mark.parametrize(
    ("site", "group"),
    [
        ("tri_mul_out.norm.input", "A"),
        ("tri_mul_in.out_norm.input", "A"),
        ("tri_attn_end.norm.input", "A"),
        ("pair_transition.norm.input", "A"),
        ("pair_to_bias.norm.input", "A"),
        ("tri_mul_out.left_gate.input", "B"),
        ("tri_mul_in.out_proj.input", "B"),
        ("tri_attn_start.bias_proj.input", "B"),
        ("pair_to_bias.proj.input", "B"),
        ("pair_transition.up_proj.input", "B"),
        ("tri_mul_out.left", "C"),
        ("tri_attn_start.v", "C"),
        ("tri_attn_end.out_proj.input", "C"),
        ("pair_transition.down_proj.input", "C"),
        ("single_to_pair.out_proj.input", "C"),
        ("tri_attn_end.probs", "float"),
        ("tri_attn_end.q_proj.weight", "float"),
        ("single_attn.q", "float"),
        ("single_transition.down_proj.input", "float"),
        ("single_norm.input", "float"),
        ("single_to_pair.proj.input", "float"),
    ],
)
def test_sites_of_a_folding_block_are_in_their_groups(folding_groups, site, group):
    assert {folding_groups[f"trunk.blocks.{block}.{site}"] for block in (0, 1)} == {group}


def test_outside_of_the_folding_blocks_all_is_float(folding_groups):
    outside = {group for site, group in folding_groups.items() if not site.startswith("trunk.blocks.")}
    assert outside == {"float"}


def test_a_language_model_by_itself_has_the_groups_too(esm2_checkpoint: Path):
    groups = {a.site.name: GROUPS[a.format] for a in plan(load(esm2_checkpoint), "aaq")}
    expected = {"attn_norm.input": "A", "attn.q_proj.input": "B", "attn.q": "C", "attn.out_proj.input": "C"}
    expected |= {"ffn_norm.input": "A", "ffn.up_proj.input": "B", "ffn.down_proj.input": "C", "attn.probs": "float"}
    assert {site: groups[f"layers.0.{site}"] for site in expected} == expected


@pytest.mark.parametrize("recipe", ["aaq", "w8a8-token", "w4a8-dint", "w4-dint"])
def test_recipes_without_frozen_ranges_need_no_sequences(recipe, esm2_checkpoint: Path):
    model = load(esm2_checkpoint)
    assert not needs_sequences(model, recipe)
    _, report = quantize(model, recipe)
    assert any(site.format != "float" for site in report.sites)
