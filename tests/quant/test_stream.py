"""A model that is quantized one block at a time gets the codes that it gets as a whole."""

import copy
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from protquant.errors import ProtquantError
from protquant.models import ESMFold, encode_complexes
from protquant.quant import Examples, QuantizedLinear, Recipe, Report, load_recipe, quantize
from protquant.quant.stream import needs_whole_model, quantize_stream
from protquant.topology import find_chains

SEQUENCES = ("GIVEQCCTSICSLYQLENYCN", "MKTAYIAKQR")
GPTQ = {
    "name": "gptq",
    "calibration": {"range": "minmax"},
    "kinds": {
        "linear_weight": {"format": "uniform", "bits": 4, "granularity": "channel", "symmetric": False},
        "linear_input": {"format": "uniform", "bits": 8, "symmetric": False},
        "norm_gain": {"format": "uniform", "bits": 8},
    },
    "steps": [{"step": "gptq"}],
}


def run(model: ESMFold, sequence: str) -> object:
    return model(encode_complexes([sequence]), num_recycles=1)


class InMemory:
    """Weights, units and calls of a small model, and what was asked of them."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.kept: dict[str | None, tuple[Report, nn.Module]] = {}
        self.present: set[str] = set()
        self.most_present = 0

    def read_into(self, model: nn.Module, unit: str | None) -> None:
        blocks = [block for chain in find_chains(self.model) for block in chain]
        if unit is None:
            state = {
                name: tensor
                for name, tensor in self.model.state_dict().items()
                if not any(name.startswith(f"{block}.") for block in blocks)
            }
            model.load_state_dict(state, strict=False, assign=True)
        else:
            self.present.add(unit)
            self.most_present = max(self.most_present, len(self.present))
            model.get_submodule(unit).load_state_dict(self.model.get_submodule(unit).state_dict(), assign=True)

    def forget_pages(self, unit: str | None) -> None:
        self.present.discard(unit or "")

    @contextmanager
    def reading_blocks(self, model: nn.Module, blocks: Collection[str]) -> Iterator[None]:
        handles = [
            model.get_submodule(block).register_forward_pre_hook(
                lambda _m, _x, block=block: self.read_into(model, block)
            )
            for block in blocks
        ]
        handles += [
            model.get_submodule(block).register_forward_hook(lambda _m, _x, _y, block=block: self.forget_pages(block))
            for block in blocks
        ]
        yield
        for handle in handles:
            handle.remove()

    def report(self, unit: str | None) -> Report | None:
        return self.kept[unit][0] if unit in self.kept else None

    def put(self, model: nn.Module, unit: str | None, report: Report) -> None:
        self.kept[unit] = report, copy.deepcopy(model if unit is None else model.get_submodule(unit))


class Calls:
    def __init__(self) -> None:
        self.kept: dict[tuple[str, int], list[tuple[object, ...]]] = {}

    def put(self, block: str, index: int, calls: Sequence[tuple[object, ...]]) -> None:
        self.kept[block, index] = list(calls)

    def get(self, block: str, index: int) -> list[tuple[object, ...]]:
        return self.kept[block, index]

    def drop(self, block: str) -> None:
        self.kept = {key: calls for key, calls in self.kept.items() if key[0] != block}


def skeleton(model: ESMFold) -> ESMFold:
    with torch.device("meta"):
        return ESMFold(model.config).eval()


def streamed(model: ESMFold, recipe: Recipe, examples: Examples | None) -> tuple[InMemory, Calls, Report]:
    store, calls = InMemory(model), Calls()
    report = quantize_stream(skeleton(model), recipe, examples, store, store, calls, lambda *_: None)
    return store, calls, report


@pytest.mark.parametrize("recipe", [load_recipe("w8a8-int8"), load_recipe("w8a8-pwlq"), Recipe.from_dict(GPTQ)])
def test_every_block_gets_the_codes_and_ranges_of_the_whole_model(esmfold: ESMFold, recipe: Recipe):
    examples = Examples(SEQUENCES, run)
    whole, expected = quantize(esmfold, recipe, examples=examples)
    store, calls, report = streamed(esmfold, recipe, examples)
    assert list(store.kept) == [None, "lm.layers.0", "lm.layers.1", "trunk.blocks.0", "trunk.blocks.1"]
    compared = 0
    for unit, (_, kept) in store.kept.items():
        for path, module in kept.named_modules():
            if isinstance(module, QuantizedLinear) and module.packed_codes is not None:
                theirs = whole.get_submodule(f"{unit}.{path}" if unit else path)
                assert torch.equal(module.packed_codes.packed, theirs.packed_codes.packed)
                compared += 1
            state = module.state_dict() if type(module).__name__.endswith("Quantizer") else {}
            for name, tensor in state.items():
                assert torch.equal(tensor, whole.get_submodule(f"{unit}.{path}" if unit else path).state_dict()[name])
    assert compared == sum(isinstance(m, QuantizedLinear) and m.packed_codes is not None for m in whole.modules())
    assert report == expected
    assert not calls.kept


def test_no_more_than_a_block_has_weights_at_a_time(esmfold: ESMFold):
    store, _, _ = streamed(esmfold, load_recipe("w8a8-int8"), Examples(SEQUENCES, run))
    assert store.most_present == 1


def test_units_that_are_done_are_not_made_again(esmfold: ESMFold):
    examples, recipe = Examples(SEQUENCES, run), load_recipe("w8a8-int8")
    store, calls = InMemory(esmfold), Calls()

    class StoppedError(Exception):
        pass

    def stop(_part: str, unit: str, done: int, _total: int, _what: str) -> None:
        if unit == "block" and done == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        quantize_stream(skeleton(esmfold), recipe, examples, store, store, calls, stop)
    assert list(store.kept) == [None, "lm.layers.0", "lm.layers.1"]
    before = {unit: kept for unit, (_, kept) in store.kept.items()}
    report = quantize_stream(skeleton(esmfold), recipe, examples, store, store, calls, lambda *_: None)
    assert all(store.kept[unit][1] is kept for unit, kept in before.items())
    assert report == quantize(esmfold, recipe, examples=examples)[1]


def test_a_recipe_without_ranges_runs_nothing(esmfold: ESMFold):
    store, calls, report = streamed(esmfold, load_recipe("w8a8-token"), None)
    assert len(store.kept) == 5
    assert not calls.kept
    assert all(site.snr_db is not None for site in report.sites if site.kind == "linear_weight" and site.bits == 8)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"steps": [{"step": "rotation"}]}, "rotation changes all blocks"),
        ({"calibration": {"range": "minmax", "lengths": "0-30,30-"}}, "calibration.lengths"),
        ({"propagate": "quantized"}, "propagate: quantized"),
    ],
)
def test_what_needs_the_whole_model_says_so_before_it_starts(esmfold: ESMFold, change: dict[str, object], reason: str):
    recipe = Recipe.from_dict(GPTQ | change)
    assert reason in needs_whole_model(recipe)
    with pytest.raises(ProtquantError, match="cannot be taken one block at a time"):
        streamed(esmfold, recipe, Examples(SEQUENCES, run))


def test_missing_sequences_are_an_error(esmfold: ESMFold):
    with pytest.raises(ProtquantError, match="needs sequences to calibrate on"):
        streamed(esmfold, load_recipe("w8a8-int8"), None)
