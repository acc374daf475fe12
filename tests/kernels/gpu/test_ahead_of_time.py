"""Kernels are compiled for GPUs that are not here, in a process of its own: in this one triton interprets them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

PROGRAM = """
import json, sys
from dataclasses import asdict, replace
from protquant.kernels.gpu.ahead_of_time import compile_variant, variants
found = []
for target in ("sm_80", "sm_90", "sm_100", "gfx942"):
    chosen = [v for v in variants(target) if v.name.endswith(("residual; fp32)", "GELU; bf16)"))]
    found += [asdict(compile_variant(v, target)) for v in chosen]
# Floats in the place of codes: no integer instruction, which has to be noticed.
floats = {"x_ptr": "*fp16", "weight_ptr": "*fp16"}
wrong = next(variants("sm_90"))
try:
    found.append(asdict(compile_variant(replace(wrong, types={**wrong.types, **floats}), "sm_90")))
except Exception as error:
    found.append({"error": type(error).__name__})
json.dump(found, sys.stdout)
"""
INSTRUCTIONS = {
    "sm_80": "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32",
    "sm_90": ".s32.s8.s8",
    "sm_100": "tcgen05.mma.cta_group::1.kind::i8",
    "gfx942": "v_mfma_i32_32x32x16_i8",
}


@pytest.mark.slow
def test_int8_kernels_use_integer_matrix_units_and_do_not_spill(tmp_path: Path):
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    *found, floats = json.loads(done.stdout)
    assert len(found) == 8
    for row in found:
        assert row["problem"] is None, row
        assert row["spill_bytes"] == 0
        assert 0 < row["registers"] <= 512
        assert any(INSTRUCTIONS[row["target"]] in name for name in row["instructions"]), row
    assert "error" in floats or "no int8 matrix instruction" in floats["problem"]


def test_interpreted_kernels_are_not_compiled():
    from protquant.kernels.gpu.ahead_of_time import compile_variant, variants  # noqa: PLC0415

    with pytest.raises(RuntimeError, match="unset TRITON_INTERPRET"):
        compile_variant(next(variants("sm_80")), "sm_80")
    with pytest.raises(ValueError, match="'sm_70' is none of sm_80, sm_90"):
        compile_variant(next(variants("sm_80")), "sm_70")
