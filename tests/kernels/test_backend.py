"""Every backend that runs here gives what the reference gives."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor

from protquant.kernels.cpu import CPUBackend, Features
from protquant.kernels.cpu.attention import attend_bfloat16, in_bits
from protquant.kernels.cpu.features import exact_products, has_exact_int_mm
from protquant.kernels.cpu.quantize import quantize_static
from protquant.kernels.operands import Codes8, Grid, IntegerWeight, TokenGrid
from protquant.kernels.packing import pack4
from protquant.kernels.reference.backend import ReferenceBackend
from protquant.quant.memory import release_freed

SIZES = [(1, 3, 17), (17, 127, 129), (129, 200, 1), (200, 64, 128), (33, 40, 24)]
GRIDS = {
    "symmetric": Grid(0.03, 0, -127, 127),
    "affine": Grid(0.02, 77, 0, 255),
    "unsigned": Grid(0.01, 0, 0, 255),
    "six bits": Grid(0.1, 20, 0, 63),
    "token": TokenGrid(8, symmetric=True),
    "token, affine": TokenGrid(8, symmetric=False),
    "token, four bits": TokenGrid(4, symmetric=False),
}


@pytest.fixture(params=["onednn", "onednn, 7 bits", "float"])
def cpu(request: pytest.FixtureRequest) -> CPUBackend:
    """The backend as it is on CPUs that have less as well; float32 between products, to compare."""
    if request.param not in exact_products():
        pytest.skip(f"this CPU has no exact product {request.param!r}: it saturates, or torch has none")
    return CPUBackend(Features(request.param, int_mm=request.param == "onednn" and has_exact_int_mm()))


def weight_of(kind: str, n: int, k: int) -> IntegerWeight:
    bias = torch.randn(n)
    if kind == "int8":
        return IntegerWeight(
            torch.randint(-127, 128, (n, k), dtype=torch.int8), 0.01 * torch.rand(n, 1) + 1e-3, None, bias, n
        )
    if kind == "int8 affine":
        codes = torch.randint(-128, 128, (n, k), dtype=torch.int8)
        return IntegerWeight(codes, 0.01 * torch.rand(n, 1), torch.randint(-128, 127, (n, 1)).to(torch.int8), None, n)
    group = 16 if "groups" in kind else None
    groups = -(-k // group) if group else 1
    codes = pack4(torch.randint(0, 16, (n, k)))
    zero = torch.randint(0, 14, (n, groups), dtype=torch.uint8)
    return IntegerWeight(codes, 0.1 * torch.rand(n, groups), zero, bias, n, kind.split(maxsplit=1)[0], group)  # type: ignore[arg-type]


WEIGHTS = ["int8", "int8 affine", "int4", "int4 groups", "dint4"]


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("grid", GRIDS)
def test_linear_layers_agree(cpu: CPUBackend, kind: str, grid: str):
    torch.manual_seed(0)
    reference = ReferenceBackend()
    for m, n, k in SIZES:
        weight, x = weight_of(kind, n, k), 2 * torch.randn(m, k)
        ours, theirs = cpu.quantize(x, GRIDS[grid]), reference.quantize(x, GRIDS[grid])
        torch.testing.assert_close(ours.decode(), theirs.decode(), rtol=1e-6, atol=1e-6)
        layers = [backend.prepare(weight, GRIDS[grid]) for backend in (cpu, reference)]
        y, expected = cpu.linear(ours, layers[0]), reference.linear(theirs, layers[1])
        tolerance = 3e-6 * expected.abs().max().item()
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=tolerance)
        torch.testing.assert_close(y, x_times(theirs, weight), rtol=1e-4, atol=10 * tolerance)
        residual = torch.randn(m, n)
        added = cpu.linear(ours, layers[0], residual=residual.clone())
        torch.testing.assert_close(added, expected + residual, rtol=1e-5, atol=2 * tolerance + 1e-6)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_residuals_of_sixteen_bits_are_rounded_once(cpu: CPUBackend, kind: str):
    torch.manual_seed(0)
    layer, x = cpu.prepare(weight_of(kind, 24, 40), GRIDS["affine"]), cpu.quantize(torch.randn(9, 40), GRIDS["affine"])
    residual = torch.randn(9, 24).bfloat16()
    expected = (residual.float() + cpu.linear(x, layer)).bfloat16()
    added = cpu.linear(x, layer, residual=residual)
    assert added is residual
    assert ((added - expected).abs() <= 2**-7 * expected.abs()).all() and (added == expected).float().mean() > 0.95


def x_times(codes: Codes8, weight: IntegerWeight) -> Tensor:
    y = codes.decode().double() @ weight.decode().double().T
    return (y if weight.bias is None else y + weight.bias).float()


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
@pytest.mark.parametrize("grid", ["affine", "token"])
def test_outputs_in_codes_agree_but_for_ties(cpu: CPUBackend, kind: str, activation, grid: str):
    torch.manual_seed(0)
    reference = ReferenceBackend()
    for m, n, k in SIZES:
        outs = [(Grid(0.05, 0, -127, 127), n)]
        if n > 1 and activation == "none":
            outs = [(Grid(0.05, 30, 0, 255), n // 2), (Grid(0.1, 0, -127, 127), n - n // 2)]
        weight, x = weight_of(kind, n, k), torch.randn(m, k)
        codes = [
            backend.linear_codes(
                backend.quantize(x, GRIDS[grid]), backend.prepare(weight, GRIDS[grid], activation, outs)
            )
            for backend in (cpu, reference)
        ]
        # The reference's codes are signed: for grids of 0 .. 255 they are 128 lower, for signed ones the CPU's higher.
        apart = codes[0].data.int() - codes[1].data.int() - 128
        assert apart.abs().max() <= 1
        assert (apart != 0).float().mean() < 0.01 + 2 / apart.numel()


def test_gates_agree(cpu: CPUBackend):
    torch.manual_seed(0)
    reference, grid, out = ReferenceBackend(), GRIDS["affine"], Grid(0.02, 100, 0, 255)
    for m, n, k in SIZES:
        weight, x, values, residual = weight_of("int8", n, k), torch.randn(m, k), torch.randn(m, n), torch.randn(m, n)
        found = []
        for backend in (cpu, reference):
            gate, codes = backend.prepare(weight, grid), backend.quantize(x, grid)
            found.append(
                (
                    backend.gated_codes(codes, gate, values, out).decode(),
                    backend.gated_add_(codes, gate, values, residual.clone()),
                )
            )
        assert ((found[0][0] - found[1][0]).abs() < 1.01 * out.scale).all()
        assert ((found[0][0] - found[1][0]).abs() > 1e-5).float().mean() < 0.01
        torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("direction", ["outgoing", "incoming"])
@pytest.mark.parametrize("zeros", [(0, 0), (100, 60)])
@pytest.mark.parametrize("length", [1, 3, 17, 40])
def test_triangle_products_are_exact(cpu: CPUBackend, direction, zeros: tuple[int, int], length: int):
    torch.manual_seed(0)
    reference, channels, k = ReferenceBackend(), 5, 24
    low, high = (-127, 127) if zeros == (0, 0) else (0, 255)
    grids = tuple(Grid(scale, zero, low, high) for scale, zero in zip((0.5, 0.25), zeros, strict=True))
    mask = torch.rand(length, length) > 0.2
    weights = [(weight_of("int8", channels, k), weight_of("int8", channels, k)) for _ in grids]
    found = []
    x = torch.randn(length * length, k)
    for backend in (reference, cpu):
        codes = backend.quantize(x, GRIDS["symmetric"])
        layers = [[backend.prepare(weight, GRIDS["symmetric"]) for weight in pair] for pair in weights]
        out = tuple(backend.channel_buffer(channels, length, x.device) for _ in range(2))
        for i in range(length):
            rows = slice(i * length, (i + 1) * length)
            some = replace(codes, data=codes.data[rows])
            for pair, grid, operand in zip(layers, grids, out, strict=True):
                backend.gated_channels(some, *pair, grid, mask[i], operand, i)
        product = backend.triangle_product(*found[0][0] if found else out, grids, direction, slice(0, length))
        found.append((out, backend.product_tokens(product, grids, slice(0, length))))
    for ours, theirs in zip(*(pair[0] for pair in found), strict=True):
        assert (ours.int() - theirs.int()).abs().max() <= 1
        assert (ours != theirs).float().mean() < 0.02
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shift", [0.0, -300.0, -60.0, 40.0, 78.0, 84.0, 88.0, 300.0])
def test_attention_of_a_processor_with_bfloat16_takes_logits_of_any_size(shift: float, masked: bool):
    torch.manual_seed(0)
    heads, length, dim, zeros, scale = 2, 33, 8, (128, 120, 131), 2e-4
    qkv = torch.randint(0, 256, (3 * length, 3 * heads * dim), dtype=torch.uint8)
    # Some rows lie high or low, the others where they are.
    bias = torch.randn(heads, length, length) + shift * (torch.arange(length) % 3 == 0)[:, None]
    mask = torch.rand(3, length) > 0.3 if masked else torch.ones(3, length, dtype=torch.bool)
    mask[1] = not masked  # the second sequence has no key at all
    given = (scale, 0.5), in_bits(bias), mask if masked else None, lambda n: torch.empty(n, dtype=torch.bfloat16)
    found = attend_bfloat16(qkv, zeros, heads, length, *given).float()
    q, k, v = (
        (part.double() - zero).unflatten(0, (3, length)).unflatten(-1, (heads, dim)).transpose(1, 2)
        for part, zero in zip(qkv.chunk(3, dim=1), zeros, strict=True)
    )
    logits = (scale * q @ k.mT + bias).masked_fill(~mask[:, None, None], -torch.inf)
    wanted = 0.5 * (logits.softmax(-1) @ v).transpose(1, 2).reshape(found.shape).float()
    # Logits of 300 have steps of 2 in bfloat16, those of 40 steps of 1/4: only the other rows are as they should be.
    right = (torch.arange(length) % 3 != 0).repeat(3) if shift else torch.ones(3 * length, dtype=torch.bool)
    right &= mask.any(-1).repeat_interleave(length)
    assert float((found[right] - wanted[right]).norm() / wanted[right].norm()) < 0.01
    assert bool(found.isfinite().all())


def test_attention_of_a_processor_with_bfloat16_is_the_same_whatever_is_worked_on_together(
    monkeypatch: pytest.MonkeyPatch,
):
    torch.manual_seed(0)
    heads, length, dim, batch = 2, 33, 8, 7
    qkv = torch.randint(0, 256, (batch * length, 3 * heads * dim), dtype=torch.uint8)
    bias, mask = in_bits(torch.randn(heads, length, length)), torch.rand(batch, length) > 0.3
    found = []
    for together in (batch, 2):
        monkeypatch.setattr("protquant.kernels.cpu.attention._LOGITS", together * heads * length**2)
        memory = partial(torch.full, fill_value=float("nan"), dtype=torch.bfloat16)
        given = (2e-4, 0.5), bias, mask, lambda n, memory=memory: memory((n,))
        found.append(attend_bfloat16(qkv, (128, 120, 131), heads, length, *given))
    assert torch.equal(*found)


@pytest.mark.parametrize("codes", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("batch", "length", "heads", "dim"), [(1, 1, 1, 8), (3, 17, 2, 16), (2, 129, 3, 8)])
def test_attention_agrees(cpu: CPUBackend, codes: bool, masked: bool, batch: int, length: int, heads: int, dim: int):
    torch.manual_seed(0)
    grids = (Grid(0.05, 130, 0, 255), Grid(0.03, 90, 0, 255), Grid(0.02, 0, -127, 127)) if codes else None
    x, bias = torch.randn(batch * length, 24), torch.randn(heads, length, length)
    mask = torch.rand(batch, length) > 0.3 if masked else None
    if mask is not None:
        mask[:, 0] = True
    weight = weight_of("int8", 3 * heads * dim, 24)
    found = []
    reference = ReferenceBackend()
    qkv = None
    for backend in (reference, cpu):
        outs = [(grid, heads * dim) for grid in grids] if grids else ()
        layer, read = backend.prepare(weight, GRIDS["symmetric"], outs=outs), backend.quantize(x, GRIDS["symmetric"])
        if grids is None:
            qkv = backend.linear(read, layer)
        else:
            # The same codes for both: those of the reference, as the other has them.
            qkv = backend.linear_codes(read, layer) if backend is reference else as_unsigned(qkv)
        found.append(backend.attention(qkv, grids, heads, length, 0.3, backend.attention_bias(bias, grids), mask))
    assert found[0].shape == (batch * length, heads * dim)
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)


def as_unsigned(codes: Codes8) -> Codes8:
    return replace(codes, data=(codes.data.int() + 128).to(torch.uint8), zero=codes.zero + 128)


def test_codes_are_the_same_without_quantized_tensors_of_torch(monkeypatch: pytest.MonkeyPatch):
    x = 3 * torch.randn(50, 40)
    codes = [quantize_static(x, grid) for grid in GRIDS.values() if isinstance(grid, Grid)]
    monkeypatch.setattr("protquant.kernels.cpu.quantize._has_one_pass", lambda: False)
    for ours, grid in zip(codes, GRIDS.values(), strict=False):
        assert (ours.int() - quantize_static(x, grid).int()).abs().max() <= 1
        assert (ours != quantize_static(x, grid)).float().mean() < 0.002


@pytest.mark.parametrize(("kind", "most"), [("int8", 1.04), ("int4", 0.54)])
def test_a_layer_takes_a_byte_a_weight_or_half_of_one(cpu: CPUBackend, kind: str, most: float):
    size = 1024 * 512
    layer = cpu.prepare(weight_of(kind, 1024, 512), GRIDS["affine"], outs=[(GRIDS["affine"], 1024)])
    assert 0.5 * size <= layer.nbytes <= most * size
    assert cpu.unpacked(layer).weight.codes.numel() <= layer.weight.codes.numel()
    assert layer.nbytes <= most * size  # nothing of what was unpacked is kept


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux tells a process what it holds")
def test_the_bytes_of_a_layer_are_those_that_the_process_holds(cpu: CPUBackend):
    weight = weight_of("int8", 4096, 2048)  # 8 MiB
    cpu.prepare(weight, GRIDS["affine"])  # oneDNN compiles
    release_freed()
    before = psutil.Process().memory_info().rss
    layers = [cpu.prepare(replace(weight, codes=weight.codes.clone()), GRIDS["affine"]) for _ in range(8)]
    release_freed()
    held = psutil.Process().memory_info().rss - before
    assert held == pytest.approx(sum(layer.nbytes for layer in layers), rel=0.1)


def test_what_multiplies_is_said():
    assert CPUBackend().kernel.startswith(("oneDNN", "float32"))
    assert "no int8 product" in CPUBackend(Features("float", int_mm=False)).kernel
