"""The Triton backend, interpreted, gives what the reference gives, and says what ran."""

import os
from typing import Literal

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from protquant.kernels.dispatch import choose_backend
from protquant.kernels.operands import Activation, Codes8, Direction, Grid, IntegerWeight, TokenGrid
from protquant.kernels.packing import pack4
from protquant.kernels.reference.backend import ReferenceBackend
from protquant.kernels.triton.backend import TritonBackend

# Tokens, outputs, inputs.
SIZES = [(1, 3, 17), (17, 65, 40), (67, 1, 50), (0, 5, 24)]
SYMMETRIC, AFFINE, SIX_BITS = Grid(0.03, 0, -127, 127), Grid(0.02, 77, 0, 255), Grid(0.1, 20, 0, 63)
GRIDS: dict[str, Grid | TokenGrid] = {
    "symmetric": SYMMETRIC,
    "affine": AFFINE,
    "unsigned": Grid(0.01, 0, 0, 255),
    "six bits": SIX_BITS,
    "token": TokenGrid(8, symmetric=True),
    "token, affine": TokenGrid(8, symmetric=False),
    "token, four bits": TokenGrid(4, symmetric=True),
    "token, four bits, affine": TokenGrid(4, symmetric=False),
}
KERNELS = {
    "int8": "linear_int8",
    "int8 affine": "linear_int8",
    "int8 groups": "reference",
    "int4": "linear_int4",
    "int4 groups": "linear_int4",
    "int4 odd groups": "reference",
    "dint4": "linear_dint4",
    "dint4 groups": "linear_dint4",
}


def weight_of(kind: str, n: int, k: int) -> IntegerWeight:
    group = {"odd": 7, "groups": 16}.get(kind.split()[1]) if "groups" in kind else None
    groups = -(-k // group) if group else 1
    bias, scale = torch.randn(n), 0.01 * torch.rand(n, groups) + 1e-3
    if kind.startswith("int8"):
        codes = torch.randint(-127, 128, (n, k), dtype=torch.int8)
        zero = torch.randint(-128, 127, (n, groups)).to(torch.int8) if kind == "int8 affine" else None
        return IntegerWeight(codes, scale, zero, bias, n, "int8", group)
    codes = pack4(torch.randint(0, 16, (n, k)))
    zero = torch.randint(0, 14, (n, groups), dtype=torch.uint8)
    kind4: Literal["int4", "dint4"] = "int4" if kind.startswith("int4") else "dint4"
    return IntegerWeight(codes, 10 * scale, zero, bias, n, kind4, group)


def backends() -> tuple[TritonBackend, ReferenceBackend]:
    torch.manual_seed(0)
    return TritonBackend(dtype=torch.float32), ReferenceBackend()


def assert_same_codes(ours: Codes8, theirs: Codes8) -> None:
    for name in ("data", "scale", "zero"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
        assert getattr(ours, name).dtype == getattr(theirs, name).dtype, name


def assert_same_but_for_ties(ours: Codes8, theirs: Codes8) -> None:
    """What is quantized may differ in the last bit of float32, which decides between two codes now and then."""
    assert ours.data.shape == theirs.data.shape
    apart = (ours.data.int() - theirs.data.int()).abs()
    assert apart.sum() <= 1 + 0.002 * apart.numel() and bool((apart <= 1).all())
    torch.testing.assert_close(ours.scale, theirs.scale, rtol=1e-5, atol=0)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("negative", [True, False])
def test_codes_are_those_of_the_reference(grid: str, negative: bool):
    ours, theirs = backends()
    for m, _, k in SIZES:
        x = 2 * torch.randn(m, 2 * k)[:, :k]
        x = x if negative else x.abs()
        assert_same_codes(ours.quantize(x, GRIDS[grid]), theirs.quantize(x, GRIDS[grid]))


@pytest.mark.parametrize("grid", GRIDS)
def test_normalized_rows_have_the_codes_of_the_reference(grid: str):
    ours, theirs = backends()
    for m, _, k in SIZES:
        x, gain, bias = 5 * torch.randn(m, k) + 3, torch.rand(k), torch.randn(k)
        # A bias that makes all values positive: symmetric rows have codes without a sign then.
        for more in (bias, bias + 30):
            codes = [backend.normalized_codes(x, gain, more, 1e-5, GRIDS[grid]) for backend in (ours, theirs)]
            assert_same_but_for_ties(*codes)
            assert torch.equal(codes[0].zero, codes[1].zero) or "affine" in grid
    assert ours.calls["norm", "layer_norm_quantize"] == 2 * len(SIZES)


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("grid", ["symmetric", "affine", "token"])
def test_linear_layers_agree(kind: str, grid: str):
    ours, theirs = backends()
    for m, n, k in SIZES:
        weight, x, residual = weight_of(kind, n, k), torch.randn(m, k), torch.randn(m, n)
        codes = ours.quantize(x, GRIDS[grid])
        activation: Activation = ("none", "relu", "gelu")[m % 3]
        layer, plain = (backend.prepare(weight, GRIDS[grid], activation) for backend in (ours, theirs))
        y, expected = ours.linear(codes, ours.unpacked(layer)), theirs.linear(codes, plain)
        tolerance = 2e-6 * float(expected.abs().max()) if m else 0.0
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=tolerance)
        added = residual.clone()
        assert ours.linear(codes, layer, residual=added) is added
        torch.testing.assert_close(added, residual + expected, rtol=1e-5, atol=tolerance + 1e-6)
    assert ours.calls == {("quantize", "quantize_int8"): len(SIZES), ("linear", KERNELS[kind]): 2 * len(SIZES)}


@pytest.mark.parametrize("kind", ["int8", "int8 groups", "int4"])
def test_outputs_have_the_type_and_the_place_that_is_asked_for(kind: str):
    ours, theirs = backends()
    weight, codes, residual = weight_of(kind, 17, 33), ours.quantize(torch.randn(3, 33), AFFINE), torch.randn(3, 17)
    layer, plain = (backend.prepare(weight, AFFINE) for backend in (ours, theirs))
    expected = theirs.linear(codes, plain)
    half = ours.linear(codes, layer, torch.float16)
    torch.testing.assert_close(half, expected.half(), rtol=1e-3, atol=1e-3)
    for place in (residual.bfloat16(), residual.T.contiguous().T):
        due = (place.float() + expected).to(place.dtype)
        assert ours.linear(codes, layer, residual=place) is place
        torch.testing.assert_close(place, due, rtol=1e-5 if place.dtype == torch.float32 else 0.01, atol=1e-5)


@pytest.mark.parametrize("kind", ["int8", "int8 affine", "int8 groups", "int4"])
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_outputs_in_codes_agree_but_for_ties(kind: str, activation: Activation):
    ours, theirs = backends()
    other, narrow = Grid(0.05, 30, 0, 255), Grid(0.1, 0, -100, 90)
    for m, n, k in SIZES:
        weight, x = weight_of(kind, n, k), torch.randn(m, k)
        # On one grid; on several of the same codes, by one kernel; on several that differ.
        for grids in ([SYMMETRIC], [AFFINE, other], [AFFINE, narrow, SYMMETRIC]):
            if n < len(grids):
                continue
            outs = [(grid, n // len(grids)) for grid in grids[1:]]
            outs.insert(0, (grids[0], n - sum(count for _, count in outs)))
            codes = ours.quantize(x, AFFINE)
            found = [
                backend.linear_codes(codes, backend.prepare(weight, AFFINE, activation, outs))
                for backend in (ours, theirs)
            ]
            assert_same_but_for_ties(*found)


@pytest.mark.parametrize("kind", ["int8", "int8 groups", "int4"])
def test_gates_agree(kind: str):
    ours, theirs = backends()
    for m, n, k in SIZES:
        weight, x = weight_of(kind, n, k), torch.randn(m, k)
        values, residual = torch.randn(m, n), torch.randn(m, n)
        codes = ours.quantize(x, AFFINE)
        layers = [backend.prepare(weight, AFFINE) for backend in (ours, theirs)]
        for grid in (SIX_BITS, TokenGrid(8, symmetric=True))[: 1 + (m > 1)]:
            pairs = zip((ours, theirs), layers, strict=True)
            assert_same_but_for_ties(*(backend.gated_codes(codes, gate, values, grid) for backend, gate in pairs))
        expected = theirs.gated_add_(codes, layers[1], values, residual.clone())
        for place in (residual.clone(), residual.T.contiguous().T):
            assert ours.gated_add_(codes, layers[0], values, place) is place
            torch.testing.assert_close(place, expected, rtol=1e-5, atol=1e-5)


def test_perceptrons_add_to_the_residual():
    ours, theirs = backends()
    for (m, n, k), kernel in zip(SIZES, ("int8", "int4", "int8 affine", "int8"), strict=True):
        up, down = weight_of(kernel, 3 * n, k), weight_of("int8", k, 3 * n)
        hidden, x, residual = Grid(0.05, 0, 0, 255), torch.randn(m, k), torch.randn(m, k)
        codes, found = ours.quantize(x, AFFINE), []
        for backend in (ours, theirs):
            layers = backend.prepare(up, AFFINE, "relu", [(hidden, 3 * n)]), backend.prepare(down, hidden)
            place = residual.clone()
            assert backend.perceptron_add_(codes, *layers, place) is place
            found.append(place)
        # A tie in the hidden layer moves an output by a step of it, times a weight.
        torch.testing.assert_close(*found, rtol=1e-5, atol=0.05 * float(down.scale.max()) * 128 + 1e-5)
        assert float((found[0] - found[1]).abs().gt(1e-4).float().sum()) <= 0.01 * m * k
    assert ours.calls["perceptron", "transition_int8"] == 2
    assert ours.calls["linear", "linear_int4"] == 1


@pytest.mark.parametrize("kind", ["int8", "int8 affine", "int4"])
@pytest.mark.parametrize("direction", ["outgoing", "incoming"])
def test_triangle_multiplications_agree(kind: str, direction: Direction):
    ours, theirs = backends()
    channels, k = 5, 24
    grids = (AFFINE, Grid(0.05, 0, -127, 127)) if direction == "outgoing" else (Grid(0.05, 0, -127, 127), SIX_BITS)
    weights = [(weight_of(kind, channels, k), weight_of(kind, channels, k)) for _ in grids]
    for length in (1, 3, 17):
        x, mask = torch.randn(length * length, k), torch.rand(length * length) > 0.2
        codes, operands = ours.quantize(x, AFFINE), []
        for backend in (ours, theirs):
            layers = [[backend.prepare(weight, AFFINE) for weight in pair] for pair in weights]
            buffers = tuple(backend.channel_buffer(channels, length, x.device) for _ in range(2))
            middle = (length // 2) * length
            for first, some, valid in ((0, slice(0, middle), None), (length // 2, slice(middle, None), mask[middle:])):
                part = Codes8(codes.data[some], codes.scale, codes.zero)
                for pair, grid, operand in zip(layers, grids, buffers, strict=True):
                    backend.gated_channels(part, *pair, grid, valid, operand, first)
            operands.append(buffers)
        for one, other in zip(*operands, strict=True):
            apart = (one.int() - other.int()).abs()
            assert apart.sum() <= 1 + 0.005 * apart.numel()
        rows = slice(length // 3, length)
        found = []
        for backend in (ours, theirs):
            # The same codes for both, in memory of their own.
            buffers = [backend.channel_buffer(channels, length, x.device) for _ in operands[1]]
            left, right = (buffer.copy_(codes) for buffer, codes in zip(buffers, operands[1], strict=True))
            product = backend.triangle_product(left, right, grids, direction, rows)
            assert product.shape == (channels, length - length // 3, length)
            found.append(backend.product_tokens(product, grids, slice(0, product.shape[1])))
            some = backend.product_tokens(product, grids, slice(1, 2))
            assert torch.equal(some, found[-1][length : 2 * length])
        # Sums are exact; two scales may be multiplied by one another or one by one.
        torch.testing.assert_close(*found, rtol=3e-7, atol=0)
    assert ours.calls["gated_channels", "gated_projection"] == (10 if kind == "int8" else 0)


@pytest.mark.parametrize("kind", ["int8", "float"])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_agrees(kind: str, masked: bool, monkeypatch: pytest.MonkeyPatch):
    # Fewer bytes than a bias has: sequences with masks go one by one.
    monkeypatch.setattr("protquant.kernels.triton.backend._BIAS_BYTES", 1)
    ours, theirs = backends()
    grids = (Grid(0.05, 130, 0, 255), Grid(0.03, 90, 0, 255), Grid(0.02, 0, -127, 127)) if kind == "int8" else None
    for batch, length, heads, dim in ((1, 1, 1, 8), (3, 17, 2, 16), (2, 129, 2, 20), (0, 17, 2, 16)):
        bias = torch.randn(heads, length, length) if dim > 8 else None
        mask = torch.rand(batch, length) > 0.3 if masked else None
        if mask is not None:
            mask[:, 0] = True
        data = torch.randint(-90, 91, (batch * length, 3 * heads * dim), dtype=torch.int8)
        qkv: Codes8 | Tensor = 0.03 * data.float()
        if kind == "int8":
            qkv = Codes8(data, torch.ones(1), torch.zeros(1, dtype=torch.int32))
        of_ours = None if bias is None else ours.attention_bias(bias, grids)
        found = ours.attention(qkv, grids, heads, length, 0.3, of_ours, mask)
        assert found.shape == (batch * length, heads * dim) and found.dtype == torch.float32
        if batch:
            # Probabilities have 11 bits where codes are multiplied, and so has the bias.
            expected = theirs.attention(qkv, grids, heads, length, 0.3, bias, mask)
            atol = 2**-11 * 91 * 0.02 * 2 if kind == "int8" else 1e-5
            torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    assert ours.calls["attention", "attention_int8" if kind == "int8" else "torch, float"] == 3


def test_four_bit_weights_take_half_a_byte():
    backend = TritonBackend()
    for group in (None, 128):
        groups = 512 // (group or 512)
        codes, scale = pack4(torch.randint(0, 16, (64, 512))), torch.rand(64, groups)
        zero = torch.full((64, groups), 8, dtype=torch.uint8)
        layer = backend.prepare(IntegerWeight(codes, scale, zero, None, 64, "int4", group), AFFINE)
        assert layer.nbytes / (64 * 512) <= 0.56
        assert layer.weight.codes.device.type == "meta"


@pytest.mark.skipif("TRITON_INTERPRET" not in os.environ, reason="kernels are compiled here")
def test_the_backend_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch):
    # What it checks takes seconds in the interpreter: see tests/kernels/test_probe.py.
    monkeypatch.setattr("protquant.kernels.dispatch.check_backend", lambda *_: None)
    assert isinstance(choose_backend("triton", torch.device("cpu")), TritonBackend)
    assert TritonBackend().kernel == "Triton int8, interpreted"
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ValueError, match="on a CPU only interpreted, with TRITON_INTERPRET=1"):
        choose_backend("triton", torch.device("cpu"))
    with pytest.raises(ValueError, match="not on mps"):
        choose_backend("triton", torch.device("mps"))
