from hypothesis import given
from hypothesis import strategies as st

from protquant.models.complexes import encode_complexes
from protquant.running.batches import length_batches, model_length

SEQUENCES = st.lists(st.lists(st.integers(1, 60).map("A".__mul__), min_size=1, max_size=3).map(":".join), max_size=30)


@given(SEQUENCES, st.integers(0, 400))
def test_every_sequence_is_in_one_batch_and_no_shared_batch_passes_the_budget(sequences: list[str], budget: int):
    batches = length_batches(sequences, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(sequences)))
    for batch in batches:
        padded = len(batch) * max(model_length(sequences[index]) for index in batch)
        assert len(batch) == 1 or padded <= budget


def test_a_budget_of_zero_folds_one_by_one():
    assert length_batches(["AAA", "A", "AA"], 0) == [[1], [2], [0]]


def test_the_length_of_a_complex_counts_its_linkers():
    sequence = "MKT:AYIAK:QR"
    assert model_length(sequence) == encode_complexes([sequence]).aatype.shape[1]
