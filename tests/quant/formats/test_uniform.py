import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from observed import observe

from protquant.errors import ProtquantError
from protquant.quant import Calibration, Uniform

VALUES = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=60).map(torch.tensor)
FORMATS = st.sampled_from(
    [Uniform(bits, symmetric, full_range=full) for bits in (2, 4, 6, 8) for symmetric, full in
     ((True, False), (True, True), (False, False))]
)  # fmt: skip


@given(VALUES, FORMATS)
def test_values_move_half_a_step_at_most(x, form):
    quantizer = form.fit(*x.aminmax())
    assert ((quantizer(x) - x).abs() <= quantizer.scale * 0.5001).all()


@given(VALUES, FORMATS)
def test_simulating_is_encoding_and_decoding(x, form):
    quantizer = form.fit(*x[: len(x) // 2 + 1].aminmax())
    assert torch.equal(quantizer(x), quantizer.decode(quantizer.encode(x)))


@given(VALUES, FORMATS)
def test_quantizing_is_idempotent_monotone_and_keeps_zero(x, form):
    quantizer = form.fit(*x.aminmax())
    once = quantizer(x.sort().values)
    assert torch.equal(quantizer(once), once)
    assert (once.diff() >= 0).all()
    assert quantizer(torch.zeros(1)).item() == 0


def test_values_that_are_never_negative_get_unsigned_codes():
    quantizer = Uniform(8).fit(torch.tensor(0.0), torch.tensor(1.0))
    assert quantizer.codes.tolist() == [0, 255]
    assert quantizer.scale.item() == pytest.approx(1 / 255)


def test_full_range_has_the_255_steps_of_ptq4protein():
    quantizer = Uniform(8, full_range=True).fit(torch.tensor(-2.0), torch.tensor(1.0))
    assert quantizer.scale.item() == pytest.approx(4 / 255)
    assert quantizer.encode(torch.tensor([-2.001, 2.001])).codes.tolist() == [-128, 127]


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-40])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_constant_is_kept(value, symmetric):
    x = torch.full((4, 3), value)
    quantizer = Uniform(8, symmetric).for_activation(observe(x), Calibration("minmax"))
    torch.testing.assert_close(quantizer(x), x, rtol=1e-6, atol=1e-38)


def test_a_row_with_a_small_range_keeps_its_own_scale():
    weight = torch.tensor([[100.0, -50.0], [0.01, -0.02]])
    per_row, per_tensor = (Uniform(8, granularity=g).for_weight(weight) for g in ("channel", "tensor"))
    torch.testing.assert_close(per_row(weight), weight, rtol=0.01, atol=0)
    assert (per_tensor(weight)[1] == 0).all()


def test_groups_have_a_scale_each():
    weight = torch.randn(3, 8)
    quantizer = Uniform(4, granularity="group", group_size=4).for_weight(weight)
    assert quantizer.scale.shape == (3, 2, 1)
    torch.testing.assert_close(quantizer(weight)[:, 4:], Uniform(4, granularity="channel").for_weight(weight[:, 4:])(
        weight[:, 4:]
    ))  # fmt: skip
    encoded = quantizer.encode(weight)
    assert encoded.codes.shape == weight.shape
    torch.testing.assert_close(quantizer.decode(encoded), quantizer(weight))


def test_a_gain_has_one_scale_whatever_the_granularity():
    gain = torch.rand(6)
    for form in (Uniform(8, granularity="channel"), Uniform(8, granularity="group", group_size=4)):
        assert form.for_weight(gain).scale.ndim == 0


def test_a_token_is_scaled_by_itself_alone():
    x = torch.tensor([[1000.0, -3.0], [0.1, -0.05]])
    quantizer = Uniform(8, granularity="token").for_activation(None, Calibration())
    torch.testing.assert_close(quantizer(x)[1], x[1], rtol=0.01, atol=0)
    torch.testing.assert_close(quantizer(x)[1:], quantizer(x[1:]))
    assert quantizer.dynamic_bits((5, 7)) == 5 * 32


def test_a_group_in_a_token_is_scaled_by_itself_alone():
    x = torch.tensor([[1000.0, -3.0, 0.1, -0.05]])
    quantizer = Uniform(8, granularity="group", group_size=2).for_activation(None, Calibration())
    torch.testing.assert_close(quantizer(x)[:, 2:], x[:, 2:], rtol=0.01, atol=0)
    assert quantizer.encode(x).scales.shape == (1, 2, 1)
    assert quantizer.dynamic_bits((5, 4)) == 5 * 2 * 32


def test_channels_of_an_activation_keep_their_own_scales():
    x = torch.randn(50, 3) * torch.tensor([1.0, 1000.0, 0.01])
    quantizer = Uniform(8, granularity="channel").for_activation(observe(x), Calibration("minmax"))
    assert ((quantizer(x) - x).std(0) / x.std(0)).max() < 0.02


def test_channels_of_varying_number_are_refused():
    with pytest.raises(ProtquantError, match="varies"):
        Uniform(8, granularity="channel").for_activation(observe(torch.randn(4, 4), torch.randn(5, 5)), Calibration())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_and_shape_stay(dtype):
    x = torch.randn(2, 3, 4).transpose(0, 2).to(dtype)
    quantizer = Uniform(8).fit(torch.tensor(-3.0), torch.tensor(3.0))
    assert quantizer(x).dtype == dtype
    assert quantizer(x).shape == x.shape
    assert quantizer(x[:0]).shape == x[:0].shape


@pytest.mark.parametrize(
    "settings",
    [
        {"bits": 1},
        {"bits": 17},
        {"bits": True},
        {"granularity": "row"},
        {"granularity": "group"},
        {"group_size": 4},
        {"granularity": "group", "group_size": 0},
        {"symmetric": False, "full_range": True},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ProtquantError):
        Uniform(**settings)


def test_granularities_that_do_not_fit_the_tensor_are_refused():
    with pytest.raises(ProtquantError, match="channel"):
        Uniform(8, granularity="token").for_weight(torch.randn(2, 2))
    with pytest.raises(ProtquantError, match="calibration"):
        Uniform(8).for_activation(None, Calibration())


@given(columns=st.integers(1, 9), group_size=st.integers(1, 12), symmetric=st.booleans(), seed=st.integers(0, 99))
def test_a_shorter_last_group_is_a_group_like_the_others(columns: int, group_size: int, symmetric: bool, seed: int):
    weight = torch.randn(3, columns, generator=torch.Generator().manual_seed(seed))
    weight[0] = -weight[0].abs()  # where nothing is negative, a symmetric grid has no sign
    quantizer = Uniform(4, symmetric, "group", group_size).for_weight(weight)
    alone = Uniform(4, symmetric, "channel")
    expected = torch.cat([alone.for_weight(part)(part) for part in weight.split(group_size, dim=1)], dim=1)
    assert torch.equal(quantizer(weight), expected)
    assert torch.equal(quantizer.decode(quantizer.encode(weight)), expected)
    assert quantizer.scale.numel() == 3 * -(-columns // group_size)


def test_tokens_too_may_end_in_a_shorter_group():
    x = torch.randn(5, 10)
    quantizer = Uniform(8, granularity="group", group_size=4).for_activation(None, Calibration())
    alone = Uniform(8, granularity="token").for_activation(None, Calibration())
    assert torch.equal(quantizer(x), torch.cat([alone(part) for part in x.split(4, dim=1)], dim=1))
    assert torch.equal(quantizer.decode(quantizer.encode(x)), quantizer(x))
    assert quantizer.dynamic_bits((5, 10)) == 5 * 3 * 32
