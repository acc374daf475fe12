"""The demo model that ships knows its chains by heart, and is small."""

from importlib.resources import files

import pytest

from protquant.checkpoints import load
from protquant.models import ESMFold
from protquant.predicting import fold
from protquant.predicting.example import example_fasta
from protquant.proteins import read_fasta
from protquant.scores import score_structures
from protquant.structures import load_references


@pytest.fixture(scope="module")
def model() -> ESMFold:
    demo = load("demo")
    assert isinstance(demo, ESMFold)
    return demo


def test_the_weights_take_at_most_12_megabytes():
    folder = files("protquant.demo") / "weights"
    assert sum(len(entry.read_bytes()) for entry in folder.iterdir()) < 12e6


def test_the_demo_has_four_blocks_and_recycles(model: ESMFold):
    assert len(model.trunk.blocks) >= 4
    assert model.config.trunk.max_recycles >= 2


def test_a_chain_is_folded_as_in_the_crystal(model: ESMFold):
    reference = load_references(limit=1)[0]
    prediction = fold(model, reference.sequence)
    assert score_structures(prediction.atoms, reference).tm_score > 0.85
    assert prediction.mean_plddt > 70


def test_the_example_holds_chains_that_the_demo_knows():
    known = {reference.sequence for reference in load_references()}
    with example_fasta() as path:
        records = read_fasta(path).records
    assert all(chain in known for record in records for chain in record.chains)
    assert any(len(record.chains) == 2 for record in records)


@pytest.mark.slow
def test_mean_tm_score_of_every_tenth_of_the_50_chains_is_at_least_85_hundredths(model: ESMFold):
    references = load_references()
    assert len(references) == 50
    scores = [score_structures(fold(model, each.sequence).atoms, each).tm_score for each in references[::10]]
    assert sum(scores) / len(scores) >= 0.85
