"""The kernel gives what the reference gives, on shapes that fill no tile."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.reference import linear as reference
from protquant.kernels.triton.int8_linear import linear_int8

SIZES = (1, 3, 17, 127, 129, 200)


def codes(*shape: int) -> Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8)


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("k", SIZES)
def test_sums_of_products_are_exact(m: int, k: int):
    torch.manual_seed(m * k)
    n = SIZES[(m + k) % len(SIZES)]
    x, weight, zero = codes(m, k), codes(n, k), torch.randint(-128, 128, (m,), dtype=torch.int32)
    one = torch.ones(1)
    scales = torch.ones(n)
    assert torch.equal(linear_int8(x, one, weight, scales), (x.double() @ weight.double().T).float())
    y = linear_int8(x, torch.ones(m), weight, scales, x_zero=zero)
    assert torch.equal(y, ((x.double() - zero.double()[:, None]) @ weight.double().T).float())


@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_follows_is_that_of_the_reference(activation, per_token: bool, dtype: torch.dtype):
    torch.manual_seed(0)
    m, n, k = 129, 127, 200
    x, weight = codes(m, 2 * k)[:, :k], codes(n, k)
    rows = m if per_token else 1
    scale, zero = 0.01 * torch.rand(rows), torch.randint(-20, 20, (rows,), dtype=torch.int32)
    more = {"bias": torch.randn(n), "gate": torch.rand(m, n), "residual": torch.randn(n, m).T.to(dtype)}
    given = {"x_zero": zero, "activation": activation, "dtype": dtype, **more}
    y = linear_int8(x, scale, weight, 0.01 * torch.ones(n), **given)
    expected = reference.linear_int8(x, scale, weight, 0.01 * torch.ones(n), **given)
    assert y.dtype == dtype
    # A unit in the last place of the output's type.
    torch.testing.assert_close(y, expected, rtol=torch.finfo(dtype).eps if dtype != torch.float32 else 2e-6, atol=2e-6)


@pytest.mark.parametrize("m", SIZES)
def test_affine_weights_are_summed_exactly(m: int):
    torch.manual_seed(m)
    n, k = SIZES[m % len(SIZES)], SIZES[-1 - m % len(SIZES)]
    x, weight, scales = codes(m, k), codes(n, k), torch.ones(n)
    zero, weight_zero = torch.randint(-128, 128, (m,), dtype=torch.int32), torch.randint(-128, 128, (n,)).int()
    steps = weight.double() - weight_zero.double()[:, None]
    y = linear_int8(x, torch.ones(1), weight, scales, weight_zero=weight_zero)
    assert torch.equal(y, (x.double() @ steps.T).float())
    y = linear_int8(x, torch.ones(m), weight, scales, x_zero=zero, weight_zero=weight_zero)
    assert torch.equal(y, ((x.double() - zero.double()[:, None]) @ steps.T).float())


@pytest.mark.parametrize(("zero", "low", "high"), [(0, -128, 127), (1, -127, 127), (-100, -128, -1), (7, 0, 15)])
def test_codes_are_written_as_the_reference_rounds(zero: int, low: int, high: int):
    torch.manual_seed(0)
    m, n, k = 129, 17, 127
    x, weight, gate = codes(m, k), codes(n, k), torch.rand(m, n).half()
    # Sums of whole halves of a step: every second one is a tie.
    out = {"out_scale": 2.0, "out_zero": zero, "out_low": low, "out_high": high}
    given = {"residual": torch.randint(-9, 9, (m, n)).bfloat16(), "activation": "relu", **out}
    one, scales = torch.full((1,), 2.0**-12), torch.ones(n)
    y = linear_int8(x, one, weight, scales, gate=gate, **given)
    assert y.dtype == torch.int8
    assert torch.equal(y, reference.linear_int8(x, one, weight, scales, gate=gate, **given))
    ones = torch.eye(3, 17, dtype=torch.int8)
    ties = linear_int8(ones, torch.ones(1), weight[:, :17], scales, **out)
    expected = (weight[:, :3].T.float() / 2).round() + zero
    assert torch.equal(ties, expected.clamp(low, high).to(torch.int8))
    assert len(ties.unique()) > 3


def test_no_rows_give_no_rows():
    assert linear_int8(codes(0, 17), torch.ones(1), codes(3, 17), torch.ones(3)).shape == (0, 3)


@pytest.mark.parametrize(
    ("x", "scale", "message"),
    [
        (torch.zeros(3, 16, dtype=torch.int8), torch.ones(1), "x has 16 channels, and the weight reads 17"),
        (torch.zeros(3, 17), torch.ones(1), "x must be a matrix of int8"),
        (torch.zeros(3, 17, dtype=torch.int8), torch.ones(2), r"x_scale has the shape \(2,\), not \(3,\) or \(1,\)"),
    ],
)
def test_operands_that_do_not_fit_are_named(x: Tensor, scale: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        linear_int8(x, scale, codes(5, 17), torch.ones(5))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bias": torch.ones(4)}, r"5 output channels have a bias of the shape \(4,\)"),
        ({"gate": torch.ones(3, 4)}, r"gate has the shape \(3, 4\), the output \(3, 5\)"),
        ({"activation": "silu"}, "'silu' is none of none, relu, gelu"),
        ({"out_scale": 0.0}, "out_scale must be positive, not 0.0"),
        ({"out_scale": 1.0, "out_high": 255}, "codes from -128 to 255 are not in the -128 to 127 of int8"),
        ({"weight_zero": torch.zeros(3, dtype=torch.int32)}, r"5 output channels have \(3,\) zero points"),
        ({"x_zero": torch.zeros(1, dtype=torch.int32)}, "3 scales and 1 zero points"),
    ],
)
def test_options_that_do_not_fit_are_named(given: dict, message: str):
    with pytest.raises(ValueError, match=message):
        linear_int8(codes(3, 17), torch.ones(3), codes(5, 17), torch.ones(5), **given)
