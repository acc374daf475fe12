"""Compare every operation of a backend with the reference on a small input, once per process.

A user's compiler, driver or processor may differ from those that the kernels were tested on. A backend with wrong
results is refused. (`protquant.kernels.cpu.features` tests the exactness of single products on a CPU.)
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from protquant.kernels.backend import Backend
from protquant.kernels.cpu.features import one_thread
from protquant.kernels.operands import ByteGrid, Direction, Grid, IntegerWeight, TokenGrid
from protquant.kernels.packing import pack4
from protquant.kernels.reference.backend import ReferenceBackend

__all__ = ["check_backend"]

EXACT, ROUNDED = 1e-3, 0.02
"""Largest accepted relative difference from the reference (root mean square). EXACT is for operations where a backend
may only break ties between two codes differently, ROUNDED for those where it may store values in bfloat16."""

_LENGTH, _VALID, _CHANNELS, _HEADS = 20, 17, 32, 2
_SYMMETRIC, _AFFINE = Grid(0.03, 0, -127, 127), Grid(0.025, 120, 0, 255)
_TOKEN = TokenGrid(8, symmetric=False)
_KEPT = ByteGrid(scale=0.02, zero_point=0, low=-64, high=63, left_scale=0.05, right_scale=0.05, tail_high=63)


def check_backend(backend: Backend, device: torch.device) -> None:
    """Compare the results of a backend with the reference, on one thread.

    Raises
    ------
    ValueError
        If the result of an operation differs by more than rounding.
    """
    with one_thread(), torch.no_grad():
        answers = zip(_answers(backend, device), _answers(ReferenceBackend(), device), strict=True)
        for (operation, found, tolerance), (_, expected, _) in answers:
            apart = float((found.float() - expected.float()).norm() / expected.float().norm())
            if not apart <= tolerance:  # NaN too
                raise ValueError(
                    f"backend {backend.name} ({backend.kernel}) computes {operation} wrongly on this machine: it"
                    f" differs from the reference by {apart:.2g} of its size, and rounding explains {tolerance:g} at"
                    f" most. Give --backend reference, which is slow, and report this with the processor and the"
                    f" version of torch, {torch.__version__}"
                )


def _answers(backend: Backend, device: torch.device) -> Iterator[tuple[str, Tensor, float]]:
    """Yield the name, the result and the tolerance of every operation, on fixed input."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).to(device)

    tokens = _LENGTH * _LENGTH
    x, residual, values = normal(tokens, _CHANNELS), normal(tokens, _CHANNELS), normal(tokens, _CHANNELS)
    weights = {kind: _weight(kind, 3 * _CHANNELS, draw, device) for kind in ("int8", "int8, affine", "int4", "dint4")}
    square, other = (_weight("int8", _CHANNELS, draw, device) for _ in range(2))
    valid = (torch.arange(_LENGTH) < _VALID).to(device)
    pair_valid = (valid[:, None] & valid).flatten()
    bias = normal(_HEADS, _LENGTH, _LENGTH)

    # Rows of a batch of three sequences with padding, and all pairs of one sequence.
    inputs, residuals, gated = (each[: 3 * _LENGTH] for each in (x, residual, values))

    kinds: dict[str, Grid | TokenGrid] = {"frozen": _AFFINE, "symmetric": _SYMMETRIC, "per-token": _TOKEN}
    for name, grid in kinds.items():
        codes = backend.quantize(inputs, grid)
        yield f"codes of a {name} grid", codes.decode(), EXACT
        for kind, weight in weights.items():
            yield f"the {kind} product with {name} codes", backend.linear(codes, backend.prepare(weight, grid)), EXACT
    yield "LayerNorm", backend.normalized_codes(inputs, values[0], values[1], 1e-5, _AFFINE).decode(), ROUNDED
    yield "the outer product", backend.outer_codes(x[:8], x[8:16], _AFFINE).decode(), EXACT

    codes, gate = backend.quantize(inputs, _AFFINE), backend.prepare(square, _AFFINE)
    added = backend.linear(codes, gate, residual=residuals.clone())
    yield "the sum with a residual", added, EXACT
    up, down = (
        backend.prepare(weights["int8"], _AFFINE, "relu", [(_AFFINE, 3 * _CHANNELS)]),
        backend.prepare(_weight("int8", _CHANNELS, draw, device, 3 * _CHANNELS), _AFFINE),
    )
    yield "the perceptron", backend.perceptron_add_(codes, up, down, residuals.clone()), ROUNDED
    yield "gated codes", backend.gated_codes(codes, gate, gated, _AFFINE).decode(), ROUNDED
    yield "the gated sum", backend.gated_add_(codes, gate, gated, residuals.clone()), ROUNDED

    grids = (_SYMMETRIC, _AFFINE)
    operands = [backend.channel_buffer(_CHANNELS, _LENGTH, device) for _ in grids]
    projections = [backend.prepare(weight, _AFFINE) for weight in (square, other)]
    pairs = backend.quantize(x, _AFFINE)
    for operand, projection, grid in zip(operands, projections, grids, strict=True):
        backend.gated_channels(pairs, gate, projection, grid, pair_valid, operand, 0)
    directions: tuple[Direction, ...] = ("outgoing", "incoming")
    for direction in directions:
        rows = slice(0, _LENGTH)
        product = backend.triangle_product(operands[0], operands[1], grids, direction, rows)
        yield f"the {direction} triangle product", backend.product_tokens(product, grids, rows), ROUNDED

    outs = [(_AFFINE, _CHANNELS), (_SYMMETRIC, _CHANNELS), (_AFFINE, _CHANNELS)]
    three = (_AFFINE, _SYMMETRIC, _AFFINE)
    coded = backend.linear_codes(codes, backend.prepare(weights["int8"], _AFFINE, outs=outs))
    floats = backend.linear(codes, backend.prepare(weights["int8"], _AFFINE))
    mask = (torch.arange(_LENGTH) < torch.tensor([_VALID, _LENGTH, 5])[:, None]).to(device)
    for name, qkv, taps in (("codes", coded, three), ("floats", floats, None)):
        prepared = backend.attention_bias(bias, taps)
        attended = backend.attention(qkv, taps, _HEADS, _LENGTH, 0.2, prepared, mask)
        yield f"attention of {name} beside padding", attended, ROUNDED
    kept = backend.encode_bytes(x, _KEPT)
    yield "values kept in a byte", backend.decode_bytes(kept, _KEPT), EXACT


def _weight(
    kind: str, outputs: int, draw: torch.Generator, device: torch.device, inputs: int = _CHANNELS
) -> IntegerWeight:
    bias = torch.randn(outputs, generator=draw).to(device)
    groups = 2 if kind == "int4" else 1
    scale = (0.002 + 0.002 * torch.rand(outputs, groups, generator=draw)).to(device)

    def codes(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high + 1, shape, generator=draw).to(device)

    if kind.startswith("int8"):
        zero = codes(-40, 40, outputs, 1).to(torch.int8) if "affine" in kind else None
        return IntegerWeight(codes(-127, 127, outputs, inputs).to(torch.int8), scale, zero, bias, outputs)
    packed, zero = pack4(codes(0, 15, outputs, inputs)), codes(0, 13, outputs, groups).to(torch.uint8)
    size = inputs // groups if groups > 1 else None
    return IntegerWeight(packed, 10 * scale, zero, bias, outputs, "dint4" if kind == "dint4" else "int4", size)
