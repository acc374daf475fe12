"""Kernels of elements and rows are compiled for GPUs that are not here, in a process of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

PROGRAM = """
import json, sys
from dataclasses import asdict
from protquant.kernels.triton.ahead_of_time import compile_variant
from protquant.kernels.triton.variants_elementwise import variants_of_elementwise
# Those that hold most in registers.
names = sys.argv[1:]
found = []
for target in ("sm_80", "sm_90", "sm_100", "gfx942"):
    chosen = [v for v in variants_of_elementwise(target) if v.name in names]
    found += [asdict(compile_variant(v, target)) for v in chosen]
json.dump(found, sys.stdout)
"""
NAMES = (
    "quantize_int8 (affine, zero; 20480 x fp32)",
    "decode_norm_quantize (affine, and fp32; 128)",
    "quantize_token_outlier (4 bits, 4 outliers; 1024 x fp32)",
)


@pytest.mark.slow
def test_kernels_of_elements_do_not_spill(tmp_path: Path):
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, "-c", PROGRAM, *NAMES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    found = json.loads(done.stdout)
    assert len(found) == 4 * len(NAMES)
    for row in found:
        assert row["problem"] is None and row["spill_bytes"] == 0, row
        assert 0 < row["registers"] <= 256
