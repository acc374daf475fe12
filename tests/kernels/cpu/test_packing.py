"""Weights that are packed here are what oneDNN makes of them, byte by byte, whatever their shape."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protquant.kernels.cpu import packing
from protquant.kernels.cpu.features import exact_products
from protquant.kernels.cpu.packing import pack_weight, raw_bytes

SHAPES = [(64, 64), (128, 512), (640, 128), (64, 4), (192, 36), (96, 384), (100, 36), (3, 5), (1, 64)]


def weight(shape: tuple[int, int], seed: int) -> torch.Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(seed))


def packed_by_onednn(steps: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ops.onednn.qlinear_prepack(steps.contiguous(), None)


def product(x: torch.Tensor, zero: int, packed: torch.Tensor, rows: int) -> torch.Tensor:
    scale, zeros = torch.ones(rows), torch.zeros(rows, dtype=torch.int32)
    none = (None, 1.0, 0, torch.float32, "none", [], "none")
    return torch.ops.onednn.qlinear_pointwise(x, 1.0, zero, packed, scale, zeros, *none)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_weight_of_a_shape_is_packed_as_the_first_is(shape: tuple[int, int]):
    first, second = weight(shape, 0), weight(shape, 1)
    kept = pack_weight(first)  # noqa: F841 (the next is made from it)
    # Where oneDNN packs otherwise, as for AVX2, nothing here is tested but that it is let do so.
    packs_so = torch.backends.cpu.get_cpu_capability() == "AVX512" and "onednn" in exact_products()
    if packs_so and not any(size % 64 for size in shape):
        assert shape in packing._known
    x = torch.randint(0, 256, (7, shape[1]), dtype=torch.uint8)
    for steps in (second, second.T.contiguous().T, second[:, :]):
        packed, theirs = pack_weight(steps), packed_by_onednn(steps)
        if not shape[0] % 64:
            assert torch.equal(raw_bytes(packed), raw_bytes(theirs))
        assert torch.equal(product(x, 3, packed, shape[0]), product(x, 3, theirs, shape[0]))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_any_size_is_packed_alike(blocks: int, quarters: int, seed: int):
    shape = (64 * blocks, 4 * quarters)
    kept = pack_weight(weight(shape, seed))  # noqa: F841
    steps = weight(shape, seed + 1)
    assert torch.equal(raw_bytes(pack_weight(steps)), raw_bytes(packed_by_onednn(steps)))


def test_extremes_do_not_overflow_their_sums():
    kept = pack_weight(weight((64, 10240), 0))  # noqa: F841
    for value in (-128, 127):
        steps = torch.full((64, 10240), value, dtype=torch.int8)
        assert torch.equal(raw_bytes(pack_weight(steps)), raw_bytes(packed_by_onednn(steps)))
