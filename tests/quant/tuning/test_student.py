"""Scales that are learned leave the float function, and what is exported is what was trained."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from protquant.models import ESM2, ESM2Output, ESMFold, encode_complexes, tokenize
from protquant.quant import calibrate, plan
from protquant.quant.ranges import Calibration
from protquant.quant.replace import replace_modules
from protquant.quant.tuning import Student

SEQUENCE = "MKTVRQERLKSIVRILERSK"


def run(model: ESM2, tokens: Tensor) -> ESM2Output:
    return model(tokens)


def make_student(
    model: nn.Module, name: str, inputs: list[Any], forward: Callable[..., Any] = run
) -> tuple[Student, Any]:
    assignments = plan(model, name)
    statistics = calibrate(model, inputs, forward)
    return Student(model, forward, assignments, statistics, Calibration("minmax")), assignments


@torch.no_grad()
def disturb(student: Student, *, scales_only: bool = False) -> None:
    """What training might have come to."""
    generator = torch.Generator().manual_seed(1)
    for group, parameters in student.parameters().items():
        for parameter in parameters.values():
            noise = torch.rand(parameter.shape, generator=generator)
            if group == "scales":
                parameter.mul_(0.3 + 2 * noise)
            elif not scales_only:
                parameter.add_(0.05 * noise - (2 * noise if group == "clipping" else 0))


@pytest.mark.parametrize("name", ["w8a8-mobilequant", "w4a8-mobilequant"])
def test_the_exported_model_answers_as_it_did_in_training(encoder: ESM2, tokens, name):
    model = copy.deepcopy(encoder)
    student, assignments = make_student(model, name, tokens)
    disturb(student)
    with torch.no_grad(), student.hooked():
        trained = [student(each).last_hidden for each in tokens]
    student.export(assignments, "learned")
    replace_modules(model, {a.site.name: a.quantizer for a in assignments if a.quantizer is not None})
    with torch.no_grad():
        for each, expected in zip(tokens, trained, strict=True):
            assert (model(each).last_hidden - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("fold", [False, True], ids=["esm2", "esmfold"])
def test_folded_scales_leave_the_float_function(esmfold: ESMFold, fold: bool):
    model = copy.deepcopy(esmfold).double().eval()
    root = model if fold else model.lm

    def forward(model: nn.Module, sequence: str) -> Any:
        return model(encode_complexes([sequence]), num_recycles=1) if fold else model(tokenize([sequence]))

    def outputs() -> list[Tensor]:
        with torch.no_grad():
            if fold:
                result = forward(root, SEQUENCE)
                return [result.single, result.pair, result.positions, result.pae_logits]
            return [root.logits(tokenize([SEQUENCE])), root.contacts(tokenize([SEQUENCE]))]

    before = outputs()
    weights = {name: value.clone() for name, value in root.named_parameters()}
    student, assignments = make_student(root, "w8a8-mobilequant", [SEQUENCE], forward)
    disturb(student, scales_only=True)
    student.export(assignments, "learned")
    changed = {
        name.rpartition(".")[0] for name, value in root.named_parameters() if not torch.equal(value, weights[name])
    }
    lm = "lm.layers.0" if fold else "layers.0"
    assert {
        f"{lm}.{each}" for each in ("attn_norm", "attn.q_proj", "attn.v_proj", "attn.out_proj", "ffn.up_proj")
    } <= changed
    # GELU does not commute with a scale; ReLU does.
    assert f"{lm}.ffn.down_proj" not in changed
    if fold:
        names = ("pair_transition.down_proj", "tri_mul_in.right_proj", "tri_attn_end.out_proj", "single_attn.qkv_proj")
        assert {f"trunk.blocks.1.{name}" for name in names} <= changed
    for ours, theirs in zip(outputs(), before, strict=True):
        assert (ours - theirs).abs().max().item() <= 1e-5 * theirs.abs().max().item()


def test_scales_of_queries_and_keys_go_through_rotary_positions(encoder: ESM2, tokens):
    model = copy.deepcopy(encoder).double()
    before = model(tokens[0], return_attentions=True).attentions
    attn = model.layers[0].attn
    size, product = attn.q_proj.out_features, attn.products()[0]
    student, _ = make_student(copy.deepcopy(encoder).double(), "w8a8-mobilequant", tokens)
    disturb(student, scales_only=True)
    for layer, path in ((attn.q_proj, "layers.0.attn.q_proj"), (attn.k_proj, "layers.0.attn.k_proj")):
        # Only rows: what the product does, without what the LayerNorm's link does to columns.
        rows = student.scales._product(path, False, size).detach()
        layer.weight.data *= rows[:, None]
        layer.bias.data *= rows
        pairs = rows.view(-1, 2, product.tied)
        assert torch.equal(pairs[:, 0], pairs[:, 1])
        assert len(rows.unique()) == size // 2
    after = model(tokens[0], return_attentions=True).attentions
    assert (after - before).abs().max() < 1e-12
    # Partners that are scaled apart would not do.
    attn.q_proj.weight.data[0] *= 2
    attn.q_proj.bias.data[0] *= 2
    attn.k_proj.weight.data[0] /= 2
    attn.k_proj.bias.data[0] /= 2
    assert (model(tokens[0], return_attentions=True).attentions - before).abs().max() > 1e-6
