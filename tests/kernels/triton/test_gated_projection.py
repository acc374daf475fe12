"""The kernel gives the codes of the reference, on shapes that fill no tile."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.reference import gated_projection as reference
from protquant.kernels.reference.projection import Int8Projection
from protquant.kernels.triton.gated_projection import gated_projection

# Rows, output channels, input channels.
SIZES = [(1, 3, 17), (3, 1, 200), (17, 127, 129), (127, 200, 1), (129, 17, 3), (200, 129, 127)]


def codes(*shape: int) -> Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8)


def projection(n: int, k: int) -> Int8Projection:
    return Int8Projection(codes(n, k), 0.01 * torch.rand(n) + 1e-3, torch.randn(n))


def assert_same_codes(found: Tensor, expected: Tensor):
    """One in a thousand values lies so near to the middle of two codes that sigmoids of two makers part them."""
    assert found.dtype == torch.int8 and found.shape == expected.shape
    apart = (found.int() - expected.int()).abs()
    assert apart.max() <= 1
    assert apart.sum() <= 1 + found.numel() // 1000


@pytest.mark.parametrize(("m", "n", "k"), SIZES)
@pytest.mark.parametrize("per_token", [False, True])
def test_codes_are_those_of_the_reference(m: int, n: int, k: int, per_token: bool):
    torch.manual_seed(m * k)
    rows = m if per_token else 1
    x, scale = codes(m, k), 0.02 * torch.rand(rows) / k**0.5 + 1e-3
    proj, gate, given = projection(n, k), projection(n, k), {"x_zero": torch.randint(-20, 20, (rows,)).int()}
    assert_same_codes(
        gated_projection(x, scale, proj, gate, torch.tensor(0.02), **given),
        reference.gated_projection(x, scale, proj, gate, torch.tensor(0.02), **given),
    )


@pytest.mark.parametrize("out_layout", ["rows", "channels"])
@pytest.mark.parametrize("biased", [False, True])
def test_masked_rows_are_zero_and_layouts_are_transposed(out_layout, biased: bool):
    torch.manual_seed(0)
    m, n, k = 129, 17, 127
    x = codes(m, 2 * k)[:, :k]  # strided rows
    proj, gate = (p if biased else p._replace(bias=None) for p in (projection(n, k), projection(n, k)))
    mask = torch.rand(m) > 0.3
    given = {"mask": mask, "out_zero": torch.tensor(-7), "out_low": -127, "out_high": 100, "out_layout": out_layout}
    scale = 0.02 * torch.rand(n) + 0.01
    found = gated_projection(x, torch.tensor([0.003]), proj, gate, scale, **given)
    assert_same_codes(found, reference.gated_projection(x, torch.tensor([0.003]), proj, gate, scale, **given))
    assert found.shape == ((m, n) if out_layout == "rows" else (n, m))
    found = found if out_layout == "rows" else found.T
    assert (found[~mask] == -7).all()
    assert (found[mask] != -7).float().mean() > 0.9
    assert found.min() == -127 and found.max() == 100  # both ends are met


def test_lines_of_rows_may_lie_apart():
    torch.manual_seed(0)
    n, k, lines, line = 17, 24, 5, 11
    x, proj, gate = codes(lines * line, k), projection(n, k), projection(n, k)
    room = torch.zeros(n, lines + 3, 16, dtype=torch.int8)
    given = (x, torch.tensor([0.003]), proj, gate, torch.tensor(0.02))
    found = gated_projection(*given, out_layout="channels", out=room[:, 2 : 2 + lines, :line])
    assert torch.equal(found.flatten(1), gated_projection(*given, out_layout="channels"))
    assert not room[:, :2].any() and not room[:, 2 + lines :].any() and not room[:, :, line:].any()
    with pytest.raises(ValueError, match=r"out must be \(17, 55\) of int8, not \(17, 5, 12\)"):
        gated_projection(*given, out_layout="channels", out=room[:, :lines, :12])


def test_halves_go_to_the_even_code():
    one, zero = torch.ones(1, dtype=torch.int8), torch.zeros(6, 1, dtype=torch.int8)
    x = torch.arange(-3, 3, dtype=torch.int8)[:, None]  # an open gate halves them
    proj, gate = Int8Projection(one[:, None], torch.ones(1)), Int8Projection(zero[:1], torch.ones(1))
    found = gated_projection(x, torch.ones(1), proj, gate, torch.tensor(1.0))
    assert found.flatten().tolist() == [-2, -1, 0, 0, 0, 1]


def test_no_rows_give_no_rows():
    proj = projection(3, 17)
    for layout, shape in (("rows", (0, 3)), ("channels", (3, 0))):
        found = gated_projection(codes(0, 17), torch.ones(1), proj, proj, torch.tensor(1.0), out_layout=layout)
        assert found.shape == shape


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gate": projection(4, 17)}, "3 channels are projected, and 4 gated"),
        ({"out_scale": torch.ones(2)}, r"3 output channels have \(2,\) scales of the output"),
        ({"mask": torch.ones(5)}, r"the mask of 5 rows is \(5,\) of torch.float32, not bool"),
        ({"out_high": 255}, "codes from -128 to 255 are not codes of int8"),
        ({"out_layout": "columns"}, "'columns' is neither 'rows' nor 'channels'"),
        ({"x_scale": torch.ones(5), "x_zero": torch.zeros(1)}, "5 scales and 1 zero points"),
    ],
)
def test_operands_that_do_not_fit_are_named(wrong: dict, message: str):
    given = {"x_scale": torch.ones(1), "proj": projection(3, 17), "gate": projection(3, 17)}
    with pytest.raises(ValueError, match=message):
        gated_projection(codes(5, 17), **given | {"out_scale": torch.ones(())} | wrong)
