"""A backend that computes anything wrongly is refused before it is used, and the operation is named."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from protquant.errors import ProtquantError
from protquant.kernels import dispatch, probe
from protquant.kernels.backend import Backend
from protquant.kernels.cpu import CPUBackend
from protquant.kernels.cpu.features import Features, exact_products, has_exact_int_mm
from protquant.kernels.reference.backend import ReferenceBackend
from protquant.quant import load_recipe
from protquant.running.execution import Execution

CPU = torch.device("cpu")


@pytest.mark.parametrize("product", ["onednn", "onednn, 7 bits", "float"])
@pytest.mark.parametrize("fast", [True, False])
def test_what_this_cpu_has_passes(product, fast: bool):
    if product not in exact_products():
        pytest.skip(f"this CPU has no exact product {product!r}")
    probe.check_backend(CPUBackend(Features(product, int_mm=fast and has_exact_int_mm(), bfloat16=fast)), CPU)


@pytest.mark.slow
def test_kernels_of_triton_pass():
    pytest.importorskip("triton")
    from protquant.kernels.triton.backend import TritonBackend  # noqa: PLC0415 (triton is optional)

    probe.check_backend(TritonBackend(), CPU)


def wrong(name: str, spoil: Callable) -> type[Backend]:
    """The reference with one operation that gives something else."""

    def spoiled(self, *args, **settings):
        return spoil(getattr(ReferenceBackend, name)(self, *args, **settings))

    return type("Wrong", (ReferenceBackend,), {"name": "wrong", name: spoiled})


def half(codes):
    return replace(codes, scale=codes.scale / 2)


@pytest.mark.parametrize(
    ("method", "spoil", "operation"),
    [
        ("quantize", half, "codes of a frozen grid"),
        ("linear", lambda y: y.clamp(max=3), "the int8 product with frozen codes"),
        ("normalized_codes", half, "LayerNorm"),
        ("outer_codes", half, "the outer product"),
        ("perceptron_add_", lambda y: y.roll(1, 0), "the perceptron"),
        ("gated_codes", half, "gated codes"),
        ("gated_add_", lambda y: -y, "the gated sum"),
        ("triangle_product", lambda y: y.transpose(1, 2), "the outgoing triangle product"),
        ("product_tokens", lambda y: y.masked_fill(y > 3, float("nan")), "the outgoing triangle product"),
        ("linear_codes", lambda c: replace(c, data=c.data.roll(1, 1)), "the perceptron"),
        ("attention", lambda y: 1.03 * y, "attention of codes beside padding"),
        ("decode_bytes", lambda y: y + 0.01, "values kept in a byte"),
    ],
)
def test_a_fault_is_told_with_its_operation_its_backend_and_the_remedy(method: str, spoil: Callable, operation: str):
    with pytest.raises(ValueError, match=f"^backend wrong .* computes {operation} wrongly .* --backend reference"):
        probe.check_backend(wrong(method, spoil)(), CPU)


def test_attention_that_sees_padding_is_found():
    class Unmasked(ReferenceBackend):
        def attention(self, qkv, grids, heads, length, scale, bias, mask):  # noqa: ARG002
            return super().attention(qkv, grids, heads, length, scale, bias, None)

    with pytest.raises(ValueError, match="attention of codes beside padding wrongly"):
        probe.check_backend(Unmasked(), CPU)


def test_it_runs_once_in_a_process_when_integers_begin_and_a_fault_ends_that(monkeypatch: pytest.MonkeyPatch):
    checked = []
    monkeypatch.setattr(dispatch, "check_backend", lambda backend, device: checked.append((backend.name, device)))
    dispatch._check_once.cache_clear()
    for _ in range(3):
        Execution(load_recipe("w8a8-int8"), None, "auto", CPU)
    Execution(load_recipe("w8a8-int8"), None, "reference", CPU)
    assert checked == [("cpu", CPU)]

    dispatch._check_once.cache_clear()
    monkeypatch.setattr(dispatch, "check_backend", probe.check_backend)
    monkeypatch.setattr(CPUBackend, "gated_add_", lambda *operands: operands[-1])
    for _ in range(2):  # a fault is not forgotten
        with pytest.raises(ProtquantError, match=r"backend cpu \(.*\) computes the gated sum wrongly on this machine"):
            Execution(load_recipe("w8a8-int8"), None, "auto", CPU)
    dispatch._check_once.cache_clear()
