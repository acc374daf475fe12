import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from observed import observe

from protquant.errors import ProtquantError
from protquant.quant import Moments, Observer


@given(st.lists(st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3), min_size=1, max_size=20))
def test_moments_of_parts_are_those_of_the_whole(rows):
    x = torch.tensor(rows)
    seen = observe([x[:1]], [x[1:]]).moments
    positive, negative = x[x > 0].double(), x[x < 0].double()
    assert (seen.minimum, seen.maximum) == (x.min().item(), x.max().item())
    assert seen.rms == pytest.approx(x.double().square().mean().sqrt().item(), rel=1e-5, abs=1e-7)
    # The mean square and the squared mean cancel where the spread is small beside them.
    assert seen.std == pytest.approx(x.double().std(correction=0).item(), rel=1e-3, abs=1e-3 * seen.rms + 1e-7)
    for side, rms in ((positive, seen.positive_rms), (negative, seen.negative_rms)):
        expected = side.square().mean().sqrt().item() if len(side) else 0.0
        assert rms == pytest.approx(expected, rel=1e-4, abs=2e-3 * seen.rms + 1e-7)


def test_extremes_are_kept_per_sequence_over_its_calls():
    seen = observe([torch.arange(6.0).view(2, 3), torch.full((1, 3), 9.0)], [torch.tensor([[-4.0, 7.0]])], depth=4)
    assert [values.tolist() for values in seen.highest] == [[9, 9, 9, 5], [7, -4]]
    assert [values.tolist() for values in seen.lowest] == [[0, 1, 2, 3], [-4, 7]]


@pytest.mark.parametrize("depth", [1, 7, 64])
def test_extremes_of_a_matrix_are_those_of_sorting_it(depth):
    x = torch.randn(200, 30, generator=torch.Generator().manual_seed(0))
    seen = observe([x], depth=depth)
    assert torch.equal(seen.highest[0], x.flatten().sort(descending=True).values[:depth])
    assert torch.equal(seen.lowest[0], x.flatten().sort().values[:depth])


def test_channels_have_ranges_of_their_own_unless_their_number_varies():
    seen = observe([torch.tensor([[1.0, -2.0], [3.0, 0.0]])], [torch.tensor([[0.0, 5.0]])])
    assert seen.channel_minimum.tolist() == [0, -2]
    assert seen.channel_maximum.tolist() == [3, 5]
    assert observe([torch.randn(3, 3)], [torch.randn(4, 4)]).channel_minimum is None


def test_a_sample_is_bounded_uniform_and_the_same_every_time():
    calls = [torch.full((rows, 16), float(rows)) for rows in (1000, 10, 3000, 500)]
    first, second = observe(calls, sample_size=4096), observe(calls, sample_size=4096)
    assert torch.equal(first.sample, second.sample)
    assert 2048 <= len(first.sample) <= 4096
    for rows in (1000, 3000, 500):
        assert (first.sample == rows).float().mean().item() == pytest.approx(rows / 4510, abs=0.03)


def test_few_values_are_all_sampled():
    x = torch.randn(5, 7)
    assert torch.equal(observe([x]).sample, x.flatten())


def test_rows_are_whole_vectors_from_early_and_late_calls():
    seen = observe(*([torch.full((50, 4), float(i))] for i in range(100)))
    firsts = [row[0].item() for row in seen.rows]
    assert 8 <= len(firsts) <= 32
    assert min(firsts) < 20 and max(firsts) > 80
    assert all(row.shape == (4,) for row in seen.rows)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_names_the_site(value):
    with pytest.raises(ProtquantError, match=r"site lm\.norm\.input"):
        Observer("lm.norm.input").update(torch.tensor([[1.0, value]]))


def test_an_observer_that_saw_nothing_says_so():
    observer = Observer("lm.norm.input")
    observer.update(torch.empty(0, 4))
    with pytest.raises(ProtquantError, match=r"lm\.norm\.input"):
        observer.statistics()


def test_moments_of_one_sided_values_are_of_that_side():
    moments = Moments.of(torch.tensor([3.0, 4.0, 0.0]))
    assert moments.negative_rms == 0
    assert moments.positive_rms == pytest.approx((25 / 2) ** 0.5)
