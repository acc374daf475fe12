"""Calibration on the lengths that a model is for, and one range for each of several."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from protquant.checkpoints.quantized import load_quantized, save_quantized
from protquant.errors import ProtquantError
from protquant.models import ESM2, ESMFold, encode_complexes
from protquant.quant import Calibration, Examples, Recipe, quantize
from protquant.quant.formats import LengthBinnedQuantizer
from protquant.quant.lengths import DEFAULT_BINS, LengthBin, bin_edges, in_bin, nearest_bin, parse_lengths
from protquant.quant.modules import ActivationQuantizer
from protquant.sites import ACTIVATION_KINDS, find_sites

A8 = {"linear_input": {"format": "uniform", "bits": 8}}
SITE = "layers.0.ffn.down_proj.input"


@pytest.fixture
def examples(tokens: list[Tensor]) -> Examples:
    # Of 39, 22 and 38 tokens.
    return Examples(tuple(tokens), lambda model, x: model(x), length=lambda x: x.shape[-1])


def bounds(model: ESM2, length: int) -> float:
    layer = model.layers[0].ffn.down_proj
    quantizer = layer.input_quantizer.quantizer.freeze(torch.zeros(length, 64))
    return quantizer.bounds()[1].item()


def recipe(lengths: str | None) -> Recipe:
    return Recipe(name="mine", kinds=A8, calibration=Calibration(range="minmax", lengths=lengths))


@pytest.mark.parametrize(
    ("text", "bins"),
    [
        ("128-256", [(128, 256)]),
        ("0-128, 128-256,512-", [(0, 128), (128, 256), (512, None)]),
        ("bins", [(0, 128), (128, 256), (256, 512), (512, 1024)]),
    ],
)
def test_lengths_are_written_as_ranges(text: str, bins: list[tuple[int, int | None]]):
    assert parse_lengths(text) == tuple(LengthBin(*each) for each in bins)
    assert parse_lengths(",".join(map(str, parse_lengths(text)))) == parse_lengths(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("long", "no range such as"),
        ("5-5", "no length is in"),
        ("1-9,5-20", "does not come behind"),
        ("9-,20-30", "behind"),
    ],
)
def test_what_are_no_lengths_is_refused_where_the_recipe_is_read(text: str, message: str):
    with pytest.raises(ProtquantError, match=message):
        Recipe.from_dict({"kinds": A8, "calibration": {"lengths": text}})


def test_a_length_belongs_to_the_nearest_bin():
    edges = bin_edges(DEFAULT_BINS)
    lengths = (1, 127, 128, 255, 256, 511, 512, 5000)
    assert [nearest_bin(edges, length) for length in lengths] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert bin_edges((LengthBin(10, 20), LengthBin(40, 50))) == (30,)


def test_a_bin_without_sequences_is_named_with_what_there_is():
    with pytest.raises(ProtquantError, match=r"none of the 2 calibration sequences has 256-512 .* 73 to 153.*FASTA"):
        in_bin(LengthBin(256, 512), ["M" * 73, "M" * 153], len)


def test_an_empty_bin_stops_the_recipe_by_name(encoder: ESM2, examples: Examples):
    with pytest.raises(ProtquantError, match=r"recipe mine: none of the 3 calibration sequences has 128-256 residues"):
        quantize(encoder, recipe("0-128,128-256"), examples=examples)


def test_the_bin_of_the_target_decides_the_range(encoder: ESM2, examples: Examples):
    short = quantize(encoder, recipe("0-30"), examples=examples)[0]
    alone = quantize(encoder, recipe(None), examples=Examples(examples.sequences[1:2], examples.forward))[0]
    everything = quantize(encoder, recipe(None), examples=examples)[0]
    assert bounds(short, 20) == bounds(short, 500) == bounds(alone, 20)
    assert bounds(short, 20) < bounds(everything, 20)


def test_every_bin_has_the_range_of_its_own_sequences(encoder: ESM2, examples: Examples, tokens: list[Tensor]):
    both, report = quantize(encoder, recipe("0-30,30-60"), examples=examples)
    short, long = (quantize(encoder, recipe(lengths), examples=examples)[0] for lengths in ("0-30", "30-60"))
    for length, alone in ((22, short), (38, long), (600, long)):
        assert bounds(both, length) == bounds(alone, length)
    with torch.no_grad():
        assert torch.equal(both(tokens[1]).last_hidden, short(tokens[1]).last_hidden)
        assert torch.equal(both(tokens[0]).last_hidden, long(tokens[0]).last_hidden)
    site = report.to_frame().set_index("site").loc[SITE]
    assert site.format.endswith("by length 0-30, 30-60")
    assert site.snr_db > 20
    assert site.elements == sum(t.shape[-1] for t in tokens) * 64


def test_statistics_that_are_given_are_of_all_lengths_and_not_used(encoder: ESM2, statistics, examples: Examples):
    given, own = (quantize(encoder, recipe("0-30"), s, examples=examples)[0] for s in (statistics, None))
    assert bounds(given, 20) == bounds(own, 20)
    with pytest.raises(ProtquantError, match="needs sequences"):
        quantize(encoder, recipe("0-30"), statistics)


def test_formats_that_follow_their_input_need_no_bins(encoder: ESM2, examples: Examples):
    kinds = {"linear_input": {"format": "uniform", "bits": 8, "granularity": "token"}}
    calibration = Calibration(range="minmax", lengths="0-30,30-60")
    model, report = quantize(encoder, Recipe(kinds=kinds, calibration=calibration), examples=examples)
    assert not any(isinstance(m, LengthBinnedQuantizer) for m in model.modules())
    assert report.to_frame().set_index("site").loc[SITE].format == "uniform 8 symmetric per token"


def test_the_axis_before_the_last_is_the_length_at_every_site(esmfold: ESMFold):
    length = 23
    seen: dict[str, set[int]] = {}

    def watch(name: str):
        return lambda _module, inputs: seen.setdefault(name, set()).add(inputs[0].shape[-2])

    sites = [site for site in find_sites(esmfold) if site.kind in ACTIVATION_KINDS]
    handles = [esmfold.get_submodule(s.module).register_forward_pre_hook(watch(s.name)) for s in sites]
    with torch.no_grad():
        esmfold(encode_complexes(["MKTVRQERLKSIVRILERSKEPV"]), num_recycles=1, chunk_size=5)
    for handle in handles:
        handle.remove()
    assert len(seen) > 100
    for name, lengths in seen.items():
        # The language model reads <cls> and <eos> beside.
        assert lengths == {length + 2 if name.startswith("lm.") else length}, name


def test_a_binned_quantizer_is_reached_through_its_site(encoder: ESM2, examples: Examples):
    model = quantize(encoder, recipe("0-30,30-60"), examples=examples)[0]
    site = model.layers[0].ffn.down_proj.input_quantizer
    assert isinstance(site, ActivationQuantizer)
    assert isinstance(site.quantizer, LengthBinnedQuantizer)
    assert site.quantizer.code_bits == 8


def test_ranges_by_length_are_saved_with_the_model(encoder: ESM2, examples: Examples, tmp_path: Path):
    model, report = quantize(encoder, recipe("0-30,30-60"), examples=examples)
    again = load_quantized(save_quantized(model, report, tmp_path / "model"))
    with torch.no_grad():
        for tokens in examples.sequences:
            assert torch.equal(again(tokens).last_hidden, model(tokens).last_hidden)
