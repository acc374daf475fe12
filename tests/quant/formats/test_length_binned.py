import pytest
import torch

from protquant.quant.formats import DynamicUniformQuantizer, LengthBinnedQuantizer, Uniform
from protquant.quant.lengths import LengthBin

BINS = (LengthBin(0, 10), LengthBin(10, 20))


def fitted(limit: float):
    return Uniform(8).fit(torch.tensor(-limit), torch.tensor(limit))


def test_the_length_of_the_input_chooses_the_range():
    quantizer = LengthBinnedQuantizer(BINS, [fitted(1), fitted(100)])
    for shape, limit in (((3, 4), 1), ((2, 9, 4), 1), ((2, 10, 4), 100), ((1, 2, 35, 4), 100), ((4,), 1)):
        x = torch.full(shape, 500.0)
        assert quantizer(x).max().item() == pytest.approx(limit)
        assert torch.equal(quantizer.decode(quantizer.encode(x)), quantizer(x))
        assert quantizer.freeze(x) is quantizer.quantizers[int(limit > 1)]


def test_scales_that_follow_the_input_are_counted_by_the_quantizer_in_use():
    quantizer = LengthBinnedQuantizer(BINS, [fitted(1), DynamicUniformQuantizer(Uniform(8, granularity="token"))])
    assert quantizer.dynamic_bits((5, 4)) == 0
    assert quantizer.dynamic_bits((15, 4)) == 15 * 32


def test_ranges_are_saved_with_the_model():
    ours, other = (LengthBinnedQuantizer(BINS, [fitted(a), fitted(b)]) for a, b in ((1, 100), (3, 5)))
    other.load_state_dict(ours.state_dict())
    x = torch.linspace(-200, 200, 60).view(15, 4)
    assert torch.equal(other(x), ours(x))


def test_there_is_one_quantizer_for_each_bin():
    with pytest.raises(ValueError, match="1 quantizers do not fit 2 bins"):
        LengthBinnedQuantizer(BINS, [fitted(1)])
