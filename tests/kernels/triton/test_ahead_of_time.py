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
from protquant.kernels.triton.ahead_of_time import compile_variant, variants
names = json.loads(sys.argv[1])
found = []
for target in ("sm_80", "sm_90", "sm_100", "gfx942"):
    by_name = {v.name: v for v in variants(target)}
    found += [asdict(compile_variant(by_name[name], target)) for name in names]
# Sizes of 1 are constants to triton; 4-bit weights in short groups.
narrow = by_name["linear_int4 W4A8 (groups, dINT, bias, gate, residual; i8)"]
settings = {**narrow.settings, "M": 1, "N": 1, "K": 1, "groups": 1, "scale_stride": 1, "BLOCK_K": 32, "out_zero": 1}
types = {name: kind for name, kind in narrow.types.items() if name not in settings}
found.append(asdict(compile_variant(replace(narrow, types=types, settings=settings, aligned=()), "gfx942")))
# Floats in the place of codes: no integer instruction, which has to be noticed.
floats = {"x_ptr": "*fp16", "weight_ptr": "*fp16"}
wrong = next(variants("sm_90"))
try:
    found.append(asdict(compile_variant(replace(wrong, types={**wrong.types, **floats}), "sm_90")))
except Exception as error:
    found.append({"error": type(error).__name__})
json.dump(found, sys.stdout)
"""
# One of each family, those that take most registers.
NAMES = [
    "linear_int8 (both zeros, bias, gate, residual; fp32)",
    "linear_int4 W4A8 (groups, bias, GELU; i8)",
    "linear_int4 W4A4 (groups, dINT, bias, gate, residual; i8)",
    "linear_flattened (4 bits, x fp32, bias, GELU; fp32)",
]
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
        [sys.executable, "-c", PROGRAM, json.dumps(NAMES)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    *found, floats = json.loads(done.stdout)
    assert len(found) == 4 * len(NAMES) + 1
    for row in found:
        assert row["problem"] is None, row
        assert row["spill_bytes"] == 0
        assert 0 < row["registers"] <= 512
        assert any(INSTRUCTIONS[row["target"]] in name for name in row["instructions"]), row
    assert "error" in floats or "no int8 matrix instruction" in floats["problem"]


def test_interpreted_kernels_are_not_compiled():
    from protquant.kernels.triton.ahead_of_time import compile_variant, variants  # noqa: PLC0415

    with pytest.raises(RuntimeError, match="unset TRITON_INTERPRET"):
        compile_variant(next(variants("sm_80")), "sm_80")
    with pytest.raises(ValueError, match="'sm_70' is none of sm_80, sm_90"):
        compile_variant(next(variants("sm_80")), "sm_70")
