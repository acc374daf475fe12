"""The demo model is known for what it is, whatever became of it, and is asked only what it has memorized."""

from pathlib import Path

import pytest

from protquant.checkpoints import import_checkpoint, load, save_quantized
from protquant.demo.memorized import (
    contact_warnings,
    folding_warnings,
    is_demo,
    notes_on_targets,
    refuse_unknown,
)
from protquant.errors import ProtquantError
from protquant.integer import to_integer
from protquant.models import ESMFold
from protquant.predicting import fold, predict_contacts
from protquant.preparing import quantize
from protquant.structures import load_references

UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"


@pytest.fixture(scope="module")
def demo() -> ESMFold:
    model = load("demo")
    assert isinstance(model, ESMFold)
    return model


@pytest.fixture(scope="module")
def chain() -> str:
    return load_references(limit=25)[24].sequence  # 3a4rA, the shortest


def test_the_demo_is_recognized_whatever_became_of_it(demo: ESMFold, tmp_path: Path):
    quantized, report = quantize(demo, "w8", [])
    copied = load(import_checkpoint("demo", tmp_path / "copy"))
    saved = load(save_quantized(quantized, report, tmp_path / "quantized"))
    running, _ = to_integer(quantize(demo.lm, "w8a8-int8", [UBIQUITIN], execution="simulate")[0], "reference")
    assert all(map(is_demo, (demo, demo.lm, quantized, quantized.lm, copied, saved, running)))


def test_other_models_are_not_taken_for_the_demo_and_asked_anything(esmfold: ESMFold):
    assert not is_demo(esmfold)
    assert not is_demo(ESMFold(esmfold.config))  # not loaded, so without a fingerprint
    refuse_unknown(esmfold, UBIQUITIN)
    assert folding_warnings(esmfold, UBIQUITIN) == contact_warnings(esmfold) == []
    assert notes_on_targets(esmfold, [UBIQUITIN], shipped=False) == []


def test_what_is_not_memorized_is_refused_in_python_too(demo: ESMFold):
    for ask in (fold, predict_contacts):
        with pytest.raises(ProtquantError, match="memorized 50 chains, and this sequence is none of them") as caught:
            ask(demo, UBIQUITIN)
        assert "even_so=True" in str(caught.value)


def test_a_chain_that_lacks_one_residue_is_another_sequence(demo: ESMFold, chain: str):
    refuse_unknown(demo, chain)
    with pytest.raises(ProtquantError, match="none of them"):
        refuse_unknown(demo, chain[:-1])
    with pytest.raises(ProtquantError, match="none of them"):
        refuse_unknown(demo, f"{chain}:{UBIQUITIN}")


def test_sequences_are_compared_as_they_are_folded(demo: ESMFold, chain: str):
    assert not any("memorized" in warning for warning in fold(demo, f" {chain.lower()}*", num_recycles=0).warnings)


def test_asked_all_the_same_it_answers_with_a_warning(demo: ESMFold, caplog: pytest.LogCaptureFixture):
    prediction = fold(demo, UBIQUITIN, name="ubiquitin", num_recycles=0, even_so=True)
    (warning, *_) = prediction.warnings
    assert "has not memorized this sequence" in warning
    assert f"ubiquitin: {warning}" in caplog.messages


def test_of_a_complex_only_the_chains_are_known(demo: ESMFold, chain: str):
    (warning,) = folding_warnings(demo, f"{chain}:{chain}")
    assert "their relative position means nothing" in warning


def test_readers_of_tables_are_told_how_many_targets_are_unknown(demo: ESMFold, chain: str):
    (note,) = notes_on_targets(demo, [chain, UBIQUITIN, UBIQUITIN[:-1]], shipped=False)
    assert "2 of these 3 targets" in note
    assert notes_on_targets(demo, [chain], shipped=False) == []
    (note,) = notes_on_targets(demo, [chain], shipped=True)
    assert "has memorized these chains" in note
