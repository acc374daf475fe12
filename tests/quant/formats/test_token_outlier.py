import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protquant.errors import ProtquantError
from protquant.quant import Calibration, TokenOutlier, Uniform

GROUPS = {"A": TokenOutlier(8, 4), "B": TokenOutlier(4, 4), "C": TokenOutlier(4, 0)}
TOKENS = st.tuples(st.integers(1, 4), st.integers(1, 40)).flatmap(
    lambda shape: st.lists(
        st.one_of(st.floats(-1e4, 1e4, width=32), st.sampled_from([0.0, 1e-30, -3e4])),
        min_size=shape[0] * shape[1],
        max_size=shape[0] * shape[1],
    ).map(lambda values: torch.tensor(values).reshape(shape))
)
FORMATS = st.builds(TokenOutlier, st.integers(2, 8), st.sampled_from([0, 1, 4, 7]))


def quantizer_of(form: TokenOutlier):
    return form.for_activation(None, Calibration())


def stored_bits(form: TokenOutlier, encoded) -> int:
    indices = torch.iinfo(encoded.indices.dtype).bits * encoded.indices.numel()
    return form.bits * encoded.codes.numel() + 16 * (encoded.scales.numel() + encoded.outliers.numel()) + indices


@pytest.mark.parametrize(("group", "nbytes"), [("A", 138), ("B", 76), ("C", 66)])
def test_a_token_of_128_channels_takes_the_bytes_of_lightnobel(group, nbytes):
    quantizer = quantizer_of(GROUPS[group])
    assert quantizer.tensor_bits((1, 128)) == 8 * nbytes
    assert quantizer.tensor_bits((2, 5, 5, 128)) == 50 * 8 * nbytes
    assert stored_bits(GROUPS[group], quantizer.encode(torch.randn(3, 128))) == 3 * 8 * nbytes


@given(TOKENS, FORMATS)
def test_the_bits_promised_are_those_of_what_is_encoded(x, form):
    quantizer = quantizer_of(form)
    assert stored_bits(form, quantizer.encode(x)) == quantizer.tensor_bits(tuple(x.shape))


@given(TOKENS, FORMATS)
def test_simulating_is_encoding_and_decoding(x, form):
    quantizer = quantizer_of(form)
    assert torch.equal(quantizer(x), quantizer.decode(quantizer.encode(x)))
    assert torch.equal(quantizer(x), quantizer.freeze(x)(x))


@given(TOKENS, FORMATS)
def test_inliers_and_outliers_move_half_a_step_at_most(x, form):
    quantizer = quantizer_of(form)
    scale = quantizer.encode(x).scales.float()
    assert ((quantizer(x) - x).abs() <= scale * 0.5001).all()


@given(TOKENS, FORMATS)
def test_codes_fit_their_bits_and_outliers_are_the_largest(x, form):
    encoded = quantizer_of(form).encode(x)
    largest = 2 ** (form.bits - 1) - 1
    assert (encoded.codes.abs() <= largest).all()
    kept = x.gather(-1, encoded.indices.long()).abs()
    assert torch.equal(kept.sort(dim=-1).values, x.abs().sort(dim=-1).values[:, x.shape[-1] - kept.shape[-1] :])
    assert (encoded.indices.long().diff(dim=-1) > 0).all()


@given(TOKENS, FORMATS)
def test_a_token_is_quantized_by_itself_alone(x, form):
    quantizer = quantizer_of(form)
    assert torch.equal(quantizer(x)[-1:], quantizer(x[-1:]))


def test_a_few_large_values_leave_the_step_to_the_others():
    x = torch.randn(50, 128, generator=torch.Generator().manual_seed(0))
    plain = (quantizer_of(GROUPS["B"])(x) - x).square().mean()
    x[:, [3, 77]] = torch.tensor([500.0, -900.0])
    spoilt = (quantizer_of(GROUPS["B"])(x) - x).square().mean()
    without = (quantizer_of(GROUPS["C"])(x) - x).square().mean()
    assert spoilt < plain * 1.3
    assert without > spoilt * 20


def test_without_outliers_it_is_the_symmetric_grid_per_token_with_a_coarser_scale():
    x = torch.randn(50, 128, generator=torch.Generator().manual_seed(0))
    uniform = Uniform(4, granularity="token").for_activation(None, Calibration())
    ratio = (quantizer_of(GROUPS["C"])(x) - x).square().mean() / (uniform(x) - x).square().mean()
    assert ratio.item() == pytest.approx(1, abs=0.02)


def test_one_huge_outlier_widens_the_step_rather_than_being_cut():
    x = torch.cat((torch.full((1, 10), 1e-3), torch.tensor([[7e5]])), dim=1)
    y = quantizer_of(TokenOutlier(4, 1))(x)
    assert y[0, -1].item() == pytest.approx(7e5, rel=1e-4)
    assert (y[0, :-1] == 0).all()


def test_a_token_of_outliers_only_is_kept_in_16_bits():
    x = torch.tensor([[1.0, -2.0, 1000.0]])
    encoded = quantizer_of(GROUPS["A"]).encode(x)
    assert encoded.codes.shape == (1, 0)
    torch.testing.assert_close(quantizer_of(GROUPS["A"])(x), x, rtol=0.02, atol=0)


@pytest.mark.parametrize(("channels", "bits"), [(128, 8), (256, 8), (257, 16), (1280, 16)])
def test_an_index_is_as_wide_as_the_channels_ask_for(channels, bits):
    x = torch.randn(1, channels)
    x[0, -1] = 100  # the largest index there is
    quantizer = quantizer_of(TokenOutlier(4, 1))
    assert torch.iinfo(quantizer.encode(x).indices.dtype).bits == bits
    assert quantizer.decode(quantizer.encode(x))[0, -1].item() == pytest.approx(100, abs=1)


@pytest.mark.parametrize("settings", [{"bits": 1}, {"bits": 9}, {"outliers": -1}, {"outliers": True}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ProtquantError):
        TokenOutlier(**settings)


def test_weights_are_refused():
    with pytest.raises(ProtquantError, match="for activations"):
        TokenOutlier().for_weight(torch.randn(2, 2))
