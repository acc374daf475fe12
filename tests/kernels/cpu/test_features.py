"""What multiplies codes on a CPU is chosen by whether it is right, and then by whether it is fast."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from protquant.kernels.cpu import features
from protquant.kernels.cpu.features import _is_int_mm_slow, _is_slower, exact_products, has_exact_int_mm, one_thread

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
"""What keeps torch's libraries from the instructions of newer CPUs; each library asks for its own."""
SAY_FEATURES = """
from protquant.kernels.cpu.features import exact_products, features
print(features().product, features().bfloat16, exact_products())
"""


def test_what_is_chosen_is_exact():
    assert features().product in exact_products()
    assert exact_products()[-1] == "float"
    assert has_exact_int_mm() or not features().int_mm


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other CPUs have other instructions")
def test_without_vnni_weights_go_in_two_parts_and_nothing_is_bfloat16():
    """As on most desktops up to 2021. Without VNNI oneDNN adds two products in 16 bits, which saturate."""
    command = [sys.executable, "-W", "ignore", "-c", SAY_FEATURES]
    done = subprocess.run(command, env=os.environ | AVX2, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "onednn, 7 bits False ('onednn, 7 bits', 'float')"


def saturating(x: Tensor, y: Tensor) -> Tensor:
    """The product of a CPU without VNNI: one operand is moved to 0 .. 255, and pairs of products meet in 16 bits."""
    pairs = (x.long() + 128).unflatten(1, (-1, 2))[:, :, None] * y.long().unflatten(0, (-1, 2)).transpose(1, 2)[None]
    return (pairs.sum(-1).clamp(-(2**15), 2**15 - 1).sum(1) - 128 * y.long().sum(0)).int()


def test_a_product_of_bytes_that_saturates_is_found_out(monkeypatch: pytest.MonkeyPatch):
    small = torch.randint(-50, 50, (8, 12), dtype=torch.int8)
    assert torch.equal(saturating(small, small.T), (small.long() @ small.long().T).int())
    for turned in (False, True):  # the moved operand may be either
        monkeypatch.setattr(torch, "_int_mm", lambda x, y, t=turned: saturating(y.T, x.T).T if t else saturating(x, y))
        assert not has_exact_int_mm.__wrapped__()
    monkeypatch.setattr(torch, "_int_mm", lambda x, y: (x.long() @ y.long()).int())
    assert has_exact_int_mm.__wrapped__()


def test_a_product_that_is_right_and_slow_is_found_out(monkeypatch: pytest.MonkeyPatch):
    """A plain loop, as oneDNN has for CPUs that it has no kernels for, takes 20 times as long as float32 or more."""
    with one_thread():
        assert _is_slower(slow(lambda: None), lambda: None, 4)
        assert not _is_slower(lambda: None, slow(lambda: None), 4)
        monkeypatch.setattr(torch, "_int_mm", lambda x, y: slow((x.float() @ y.float()).int)())
        assert _is_int_mm_slow()
        monkeypatch.setattr(torch, "_int_mm", lambda x, y: x.float() @ y.float())
        assert not _is_int_mm_slow()


def slow(run: Callable[[], object]) -> Callable[[], object]:
    def run_slowly() -> object:
        end = time.thread_time() + 0.005
        while time.thread_time() < end:
            pass
        return run()

    return run_slowly


def test_asking_takes_little_time_and_leaves_threads_as_they_are():
    threads = torch.get_num_threads()
    taken = []
    for _ in range(3):
        for answer in (features, exact_products, has_exact_int_mm):
            answer.cache_clear()
        started = time.process_time()
        features()
        taken.append(time.process_time() - started)
    assert min(taken) < 0.1
    assert torch.get_num_threads() == threads
