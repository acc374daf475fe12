"""Going through a model block by block sees what running it whole sees."""

import copy

import pytest
import torch

from protquant.errors import ProtquantError
from protquant.models import ESM2, ESMFold, encode_complexes
from protquant.quant.calibrate import watch_input
from protquant.quant.evidence import Gatherer
from protquant.quant.layerwise import sweep
from protquant.topology import find_links

SEQUENCES = ["GIVEQCCTSICSLYQLENYCN", "MKTAYIAKQR"]


def run(model: ESMFold, sequence: str) -> object:
    return model(encode_complexes([sequence]), num_recycles=1)


def test_the_evidence_of_blocks_is_that_of_the_whole_model(esmfold: ESMFold):
    groups = [link.readers for link in find_links(esmfold)] + [("trunk.to_structure_single",)]
    gatherers = {group: Gatherer() for group in groups}
    handles = [watch_input(esmfold.get_submodule(group[-1]), seen.update) for group, seen in gatherers.items()]
    with torch.no_grad():
        for sequence in SEQUENCES:
            run(esmfold, sequence)
    for handle in handles:
        handle.remove()
    seen = {}
    stages = []
    for stage in sweep(esmfold, SEQUENCES, run, groups):
        stages.append(stage.path)
        seen |= stage.evidence
    assert stages == [None, "lm.layers.0", "lm.layers.1", "trunk.blocks.0", "trunk.blocks.1"]
    for group, gatherer in gatherers.items():
        whole = gatherer.evidence()
        assert whole is not None
        for path in group:
            assert seen[path].count == whole.count, path
            # Of blocks, which are run again on what they were given: the same numbers.
            assert torch.allclose(seen[path].gram, whole.gram, rtol=1e-4, atol=1e-5 * whole.gram.abs().max()), path


@pytest.mark.parametrize("quantized", [False, True])
def test_later_blocks_see_a_change_only_if_they_are_to(encoder: ESM2, tokens, quantized: bool):
    model = copy.deepcopy(encoder)
    group = ("layers.1.ffn.up_proj",)

    def gram(change: float) -> torch.Tensor:
        for stage in sweep(model, tokens, lambda m, x: m(x), [("layers.0.ffn.up_proj",), group], quantized=quantized):
            if stage.path == "layers.0":
                with torch.no_grad():
                    model.layers[0].ffn.down_proj.weight.add_(change)
            if stage.path == "layers.1":
                return stage.evidence[group[0]].gram
        raise AssertionError

    before = gram(0.0)
    assert torch.equal(before, gram(0.5)) is not quantized


def test_nothing_to_run_on_is_an_error(encoder: ESM2):
    with pytest.raises(ProtquantError, match="no sequences"):
        next(sweep(encoder, [], lambda m, x: m(x), [("layers.0.ffn.up_proj",)]))


def test_the_model_is_left_in_the_mode_it_was_in(encoder: ESM2, tokens):
    model = copy.deepcopy(encoder).train()
    for _ in sweep(model, tokens, lambda m, x: m(x), [("layers.0.ffn.up_proj",)]):
        assert not model.training
    assert model.training
