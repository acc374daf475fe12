"""Memory of mapped tensors can be given back; values stay what the file says, and other tensors what they are."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from protquant.files.mapped_memory import forget_pages

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_values_are_read_again(tmp_path: Path):
    expected = torch.randn(5000)
    save_file({"x": expected}, tmp_path / "x.safetensors")
    mapped = load_file(tmp_path / "x.safetensors")["x"]
    anonymous = expected.clone()
    forget_pages([mapped, anonymous])
    assert torch.equal(mapped, expected)
    assert torch.equal(anonymous, expected)


@linux
def test_pages_are_given_back(tmp_path: Path):
    save_file({"x": torch.ones(2**24)}, tmp_path / "x.safetensors")
    program = f"""
import psutil
from safetensors.torch import load_file
from protquant.files.mapped_memory import forget_pages
x = load_file({str(tmp_path / "x.safetensors")!r})["x"]
read = x.sum()
before = psutil.Process().memory_info().rss
forget_pages([x])
print((before - psutil.Process().memory_info().rss) / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 60
