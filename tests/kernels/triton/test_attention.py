"""The kernel gives what the reference gives, on shapes that fill no tile."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.reference.attention import attention
from protquant.kernels.triton.attention import attention_int8
from protquant.kernels.triton.tiles_triangle import AttentionTile

# Queries, keys, channels of a head.
SIZES = [(1, 3, 8), (3, 1, 16), (17, 127, 32), (127, 17, 64), (129, 200, 20), (200, 129, 32), (3, 3, 128)]
FLOAT_TOLERANCE = 2**-10  # of the largest decoded |v|: probabilities have 11 bits


def codes(*shape: int) -> Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8)


def operands(b: int, h: int, i: int, j: int, d: int, *, per_token: bool, zeros: bool = True) -> dict:
    """Logits have a standard deviation of about 2: neither flat nor one key alone."""
    scale = (2 / (74 * 74 * d**0.5)) ** 0.5
    given = {}
    for name, length in (("q", i), ("k", j), ("v", j)):
        size = 0.01 if name == "v" else scale
        given[name] = codes(b, h, length, d)
        given[f"{name}_scale"] = size * (0.5 + torch.rand(b, h, length)) if per_token else torch.tensor(size)
        given[f"{name}_zero"] = torch.randint(-20, 20, ()).int() if zeros else None
    return given


def reference(q, k, v, *, bias=None, mask=None, scale=1.0, dtype=torch.float32, **numbers) -> Tensor:
    """Attention of the values that codes mean."""
    values = []
    for name, codes in (("q", q), ("k", k), ("v", v)):
        zero = numbers[f"{name}_zero"]
        steps = codes.float() - (0 if zero is None else zero)
        values.append(steps * numbers[f"{name}_scale"].expand(codes.shape[:3])[..., None])
    return attention(*values, bias, mask, scale).to(dtype)


def largest_value(given: dict) -> float:
    steps = given["v"].float() - (0 if given["v_zero"] is None else given["v_zero"])
    return float((steps * given["v_scale"].expand(given["v"].shape[:3])[..., None]).abs().max())


@pytest.mark.parametrize(("i", "j", "d"), SIZES)
@pytest.mark.parametrize("per_token", [False, True])
def test_float_values_agree_with_the_reference(i: int, j: int, d: int, per_token: bool):
    torch.manual_seed(i * j)
    given = operands(2, 2, i, j, d, per_token=per_token) | {"bias": torch.randn(2, 2, i, j), "scale": 0.7}
    given |= {"mask": torch.rand(2, j) > 0.2}
    found, expected = attention_int8(**given), reference(**given)
    assert found.shape == (2, i, 2, d)
    torch.testing.assert_close(found, expected, rtol=0, atol=FLOAT_TOLERANCE * largest_value(given))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_operands_are_strided_and_biases_shared(dtype: torch.dtype):
    """As triangle attention along columns calls it: queries, keys and values of all heads in one matrix."""
    torch.manual_seed(0)
    length, h, d = 11, 3, 32
    given = operands(length, h, length, length, d, per_token=False, zeros=False)
    together = codes(length, length, 3 * h * d).transpose(0, 1).unflatten(-1, (3, h, d))
    given |= {name: x.transpose(1, 2) for name, x in zip("qkv", together.unbind(2), strict=True)}
    bias = torch.randn(length, length, h).to(dtype).permute(2, 1, 0)[None]  # for all rows, heads side by side
    given |= {"bias": bias, "mask": (torch.rand(1, length) > 0.3), "dtype": dtype}
    found, expected = attention_int8(**given), reference(**given)
    assert found.dtype == dtype and found.is_contiguous()
    allowed = FLOAT_TOLERANCE * largest_value(given)
    torch.testing.assert_close(found, expected, rtol=2 * torch.finfo(dtype).eps, atol=allowed)


def test_the_mean_of_equal_values_is_that_value():
    torch.manual_seed(0)
    given = operands(1, 1, 5, 150, 16, per_token=False) | {"v": torch.full((1, 1, 150, 16), 77, dtype=torch.int8)}
    value = (77 - given["v_zero"]) * given["v_scale"]
    torch.testing.assert_close(attention_int8(**given), value.expand(1, 5, 1, 16), rtol=1e-5, atol=0)


def test_rows_without_a_key_have_the_mean_of_values():
    torch.manual_seed(0)
    given = operands(3, 2, 5, 150, 32, per_token=True) | {"mask": torch.rand(3, 150) > 0.5}
    given["mask"][1] = False
    found = attention_int8(**given)
    values = (given["v"].float() - given["v_zero"]) * given["v_scale"][..., None]
    mean = values[1].mean(1)[None].expand(5, -1, -1)
    torch.testing.assert_close(found[1], mean, rtol=0, atol=0.005 * largest_value(given))
    torch.testing.assert_close(found, reference(**given), rtol=0, atol=0.01 * largest_value(given))


def test_masked_keys_count_for_nothing_even_a_block_of_them():
    """Beginning, middle and end in turn: the online softmax meets masked blocks before and after valid ones."""
    torch.manual_seed(0)
    for kept in (slice(0, 10), slice(70, 90), slice(140, 150)):
        given = operands(1, 2, 3, 150, 32, per_token=True)
        mask = torch.zeros(1, 150, dtype=torch.bool)
        mask[:, kept] = True
        bias = torch.where(mask, 0.0, -float("inf"))[:, None, None, :]
        alone = {name: given[name][:, :, kept] for name in ("k", "v", "k_scale", "v_scale")}
        expected = attention_int8(**given | alone)
        torch.testing.assert_close(attention_int8(**given, mask=mask), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(attention_int8(**given, bias=bias), expected, rtol=1e-5, atol=1e-5)


def test_logits_far_apart_stay_finite():
    q = torch.full((1, 1, 2, 32), 127, dtype=torch.int8)
    k = torch.cat([torch.full((1, 1, 40, 32), n, dtype=torch.int8) for n in (-128, 127, -128)], dim=2)
    v = codes(1, 1, 120, 32)
    one = torch.tensor(1.0)
    found = attention_int8(q, k, v, one, one, one, tile=AttentionTile(32, 32, 4, 2))
    torch.testing.assert_close(found[0, 0, 0], v[0, 0, 40:80].float().mean(0), rtol=1e-3, atol=0.1)


def test_nothing_in_nothing_out():
    one = torch.tensor(1.0)
    for b, i, j in ((0, 3, 3), (2, 0, 3), (2, 3, 0)):
        found = attention_int8(codes(b, 4, i, 8), codes(b, 4, j, 8), codes(b, 4, j, 8), one, one, one)
        assert found.shape == (b, i, 4, 8) and (found == 0).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"q": torch.zeros(2, 3, 5, 8)}, "q must be"),
        ({"v": codes(2, 3, 4, 8)}, r"keys \(2, 3, 5, 8\), values \(2, 3, 4, 8\) do not fit"),
        ({"k_scale": torch.ones(2, 3)}, r"k_scale has the shape \(2, 3\), which does not broadcast to \(2, 3, 5\)"),
        ({"mask": torch.ones(2, 5)}, "the mask is of torch.float32, not bool"),
        ({"bias": torch.ones(3, 5, 4)}, r"bias has the shape \(3, 5, 4\)"),
    ],
)
def test_operands_that_do_not_fit_are_named(wrong: dict, message: str):
    given = {name: codes(2, 3, 5, 8) for name in "qkv"} | {f"{name}_scale": torch.tensor(1.0) for name in "qkv"}
    with pytest.raises(ValueError, match=message):
        attention_int8(**given | wrong)
