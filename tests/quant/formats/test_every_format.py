"""What holds for every format that recipes know."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from observed import observe

from protquant.errors import ProtquantError
from protquant.quant import FORMATS, Calibration, Format, PiecewiseLinear, Quantizer, StaticQuantizer

MINMAX = Calibration("minmax")
# A breakpoint that is searched takes a tenth of a second, and is one like any other.
VARIANTS = [
    replace(variant, breakpoint="numeric") if isinstance(variant, PiecewiseLinear) else variant
    for cls in FORMATS.values()
    for variant in cls.variants()
]
LIVE = [PiecewiseLinear(4, mode, "numeric", live=True) for mode in ("asymmetric", "overlapping")]
MATRICES = st.tuples(st.integers(1, 3), st.sampled_from([32, 64]), st.integers(0, 2**32 - 1)).map(
    lambda drawn: torch.randn(drawn[:2], generator=torch.Generator().manual_seed(drawn[2])).pow(3)
)
DTYPES = [torch.float64, torch.bfloat16, torch.float16]
every_variant = pytest.mark.parametrize("form", VARIANTS, ids=lambda form: form.label)


def fits(form: Format, x: torch.Tensor) -> list[Quantizer]:
    """The format as a weight's, as an activation's, or both: what it is for."""
    quantizers: list[Quantizer] = []
    for fit in (lambda: form.for_weight(x), lambda: form.for_activation(observe(x), MINMAX)):
        try:
            quantizers.append(fit())
        except ProtquantError as error:
            assert "is for" in str(error) or "are for" in str(error)  # noqa: PT017  # that is all that may be said
    assert quantizers
    return quantizers


@pytest.mark.parametrize("form", [*VARIANTS, *LIVE], ids=lambda form: form.label)
@settings(max_examples=15, deadline=None)
@given(x=MATRICES)
def test_simulating_is_encoding_and_decoding(form, x):
    for quantizer in fits(form, x):
        decoded = quantizer.decode(quantizer.encode(x))
        assert decoded.dtype == torch.float32
        torch.testing.assert_close(quantizer(x), decoded, rtol=1e-5, atol=1e-6 * x.abs().max().item())


@every_variant
@settings(max_examples=15, deadline=None)
@given(x=MATRICES)
def test_codes_and_regions_take_no_more_values_than_their_bits_hold(form, x):
    for quantizer in fits(form, x):
        encoded = quantizer.encode(x)
        pairs = encoded.codes.int() * 4 + (0 if encoded.regions is None else encoded.regions.int())
        assert pairs.unique().numel() <= 2**quantizer.code_bits
        assert encoded.codes.int().max() - encoded.codes.int().min() < 2**quantizer.code_bits


@every_variant
def test_dtype_and_shape_stay_and_nothing_stays_nothing(form):
    # Transposed, so that what is contiguous is not the last axis.
    x = torch.randn(64, 3, 2, generator=torch.Generator().manual_seed(0)).permute(2, 1, 0)
    for quantizer in fits(form, x):
        for dtype in DTYPES:
            assert quantizer(x.to(dtype)).dtype == dtype
            assert quantizer(x.to(dtype)).shape == x.shape
            # An input in half precision is an input like any other: what differs is how the answer is rounded.
            torch.testing.assert_close(quantizer(x.half()), quantizer(x.half().float()).half())
        if isinstance(quantizer, StaticQuantizer) and not _has_one_scale(quantizer):
            continue
        for empty in (x[:0], x[:, :0], x[..., :0]):
            assert quantizer(empty).shape == empty.shape
            assert quantizer.decode(quantizer.encode(empty)).shape == empty.shape


def _has_one_scale(quantizer: StaticQuantizer) -> bool:
    scale = getattr(quantizer, "scale", None)
    return scale is None or scale.ndim == 0


@every_variant
def test_zeros_stay_zeros(form):
    x = torch.zeros(2, 64)
    for quantizer in fits(form, x):
        assert torch.equal(quantizer(x), x)


@every_variant
def test_levels_are_those_that_values_meet(form):
    x = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    for quantizer in fits(form, x):
        levels = quantizer.freeze(x).levels()
        if levels is None:
            continue
        assert len(levels) <= form.num_levels
        assert (levels.diff() > 0).all()
        ends = levels[0].item(), levels[-1].item()
        # Near 0 a floating point has more levels than a grid of points would find.
        small = levels[-1] * torch.logspace(-12, 0, 2**13)
        dense = torch.cat((torch.linspace(*ends, 2**13), small, -small)).clamp(*ends)
        outliers = getattr(form, "outliers", 0)
        # Outliers take themselves out of a token, so that what is left meets the grid of inliers.
        tokens = torch.cat((dense[:, None], torch.full((len(dense), outliers), levels[-1] * 2)), dim=1)
        met = quantizer.freeze(x)(tokens)[:, 0].unique()
        distance = (met[:, None] - levels).abs()
        assert max(distance.amin(0).max(), distance.amin(1).max()) <= 1e-6 * levels.abs().max()
        assert len(met) == len(levels)


@every_variant
@settings(max_examples=10, deadline=None)
@given(x=MATRICES)
def test_an_error_is_at_most_half_of_the_widest_gap_between_levels(form, x):
    for quantizer in fits(form, x[:1]):
        levels = quantizer.freeze(x[:1]).levels()
        if levels is None or levels.numel() < 2:
            continue
        gap = levels.diff().max()
        # The range begins and ends within half a step of a level.
        assert ((quantizer(x[:1]) - x[:1]).abs() <= gap * 0.501 + 1e-6).all()
