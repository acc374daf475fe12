"""Splits leave what a layer computes as it is, and merges add and average."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protquant.errors import ProtquantError
from protquant.quant.channel_splitting import (
    EqualSplit,
    Merge,
    SaturatingSplit,
    WeightSplit,
    pieces_at,
    thresholds_within,
)
from protquant.quant.transforms import InputTransform

COUNTS = torch.tensor([1, 3, 1, 2])
X = torch.tensor([[0.5, 2.7, -0.9, -1.6], [-1.0, -3.0, 0.0, 2.0], [0.1, 1.5, 0.7, 0.3]])
WEIGHT = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.2, 0.7, -1.1, 0.4]])


def summed(split: InputTransform, x: torch.Tensor) -> torch.Tensor:
    """The pieces of every channel, added in their order."""
    total = torch.zeros_like(x)
    for piece, channel in zip(split(x).unbind(-1), split.channel.tolist(), strict=True):
        total[..., channel] += piece
    return total


def test_a_saturating_split_fills_one_piece_after_the_other():
    pieces = SaturatingSplit.of(COUNTS, 1.0)(X)
    assert torch.allclose(pieces[0], torch.tensor([0.5, 1.0, -0.9, -1.0, 1.0, 0.7, -0.6]))
    assert torch.allclose(pieces[2], torch.tensor([0.1, 1.0, 0.7, 0.3, 0.5, 0.0, 0.0]))


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=4, max_size=4),
    st.floats(0.125, 128, width=32),
    st.integers(1, 12),
)
def test_pieces_of_a_saturating_split_add_up_to_the_value_within_its_range_and_beyond(values, threshold, number):
    x = torch.tensor(values)
    split = SaturatingSplit.of(torch.full((4,), number), threshold)
    within = x.clamp(-number * threshold, number * threshold)
    assert torch.equal(summed(split, within), within)
    assert (summed(split, x) - x).abs().le(3e-7 * x.abs()).all()
    assert split(within).abs().max() <= threshold * (1 + 1e-5) + 1e-6 * x.abs().max()


@pytest.mark.parametrize(
    "split",
    [SaturatingSplit.of(COUNTS, 0.8), EqualSplit.of(COUNTS), EqualSplit.of(COUNTS, 16), WeightSplit.of(COUNTS, 0.5)],
    ids=["saturating", "equal", "filled", "weights"],
)
def test_what_a_layer_computes_stays(split: InputTransform):
    x, weight = 5 * X.double(), WEIGHT.double()
    assert torch.allclose(split(x) @ split.columns(weight).T, x @ weight.T, rtol=1e-12, atol=1e-12)


def test_a_filled_tile_has_zeros_on_both_sides():
    split = EqualSplit.of(COUNTS, 16)
    assert split(X).shape[-1] == 16
    assert not split(X)[:, 7:].any()
    assert not split.columns(WEIGHT)[:, 7:].any()


def test_a_weight_split_keeps_the_columns_below_the_threshold():
    columns = WeightSplit.of(torch.tensor([1, 2, 1, 2]), 0.5).columns(WEIGHT)
    assert columns.abs().max() == 1.5
    assert torch.allclose(columns[0], torch.tensor([1.0, -1.5, 0.5, 1.5, -0.5, 1.5]))


def test_merged_channels_are_averaged_and_their_columns_added():
    merge = Merge.of(torch.tensor([0, 1, 1, 1]))
    assert torch.allclose(merge(X), torch.stack((X[:, 0], X[:, 1:].mean(1)), 1))
    assert torch.allclose(merge.columns(WEIGHT), torch.stack((WEIGHT[:, 0], WEIGHT[:, 1:].sum(1)), 1))


@given(st.lists(st.floats(0.125, 1024, width=32), min_size=1, max_size=12), st.integers(0, 10))
def test_the_smallest_threshold_within_a_number_of_channels_is_found(maxima, extra):
    maximum = torch.tensor(maxima)
    thresholds = thresholds_within(maximum, extra)
    for allowed, threshold in enumerate(thresholds):
        assert int(pieces_at(maximum, threshold).sum()) - len(maximum) <= allowed
    # A little lower, and there are more than allowed.
    assert int(pieces_at(maximum, 0.999 * thresholds[extra]).sum()) - len(maximum) > extra


def test_a_threshold_of_nothing_is_refused():
    with pytest.raises(ProtquantError, match="positive"):
        pieces_at(torch.ones(3), 0.0)


@pytest.mark.parametrize("transform", [SaturatingSplit.of(COUNTS, 0.8), EqualSplit.of(COUNTS), Merge.of(COUNTS - 1)])
def test_buffers_are_all_that_a_transform_holds(transform: InputTransform):
    again = type(transform)(**dict(transform.named_buffers()))
    assert torch.equal(again(X), transform(X))
    assert torch.equal(copy.deepcopy(transform)(X), transform(X))
