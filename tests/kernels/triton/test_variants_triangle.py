"""Kernels of the pair track compile without spills, one for each target; `protquant kernels` compiles all for all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

from protquant.kernels.triton.tiles import TARGETS
from protquant.kernels.triton.variants_triangle import variants_of_triangle

PROGRAM = """
import json, sys
from dataclasses import asdict
from protquant.kernels.triton.ahead_of_time import compile_variant
from protquant.kernels.triton.variants_triangle import variants_of_triangle
found = []
for name, target in json.loads(sys.argv[1]).items():
    (variant,) = [v for v in variants_of_triangle(target) if v.name == name]
    found.append(asdict(compile_variant(variant, target)))
json.dump(found, sys.stdout)
"""
CHOSEN = {
    "triangle_product incoming (zeros; bf16; 16 n residues)": "sm_80",
    "attention_int8 (bias, zeros; 32 channels; bf16; 16 n residues)": "sm_90",
    "gated_projection (zero, bias, mask)": "sm_100",
    "transition_int8 (zero, bias, residual; 128 channels; fp32)": "gfx942",
}


@pytest.mark.slow
def test_a_kernel_for_each_target_uses_integer_matrix_units_and_does_not_spill(tmp_path: Path):
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, "-c", PROGRAM, json.dumps(CHOSEN)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    found = json.loads(done.stdout)
    assert len(found) == len(CHOSEN)
    for row in found:
        assert row["problem"] is None, row
        assert row["spill_bytes"] == 0 and 0 < row["registers"] <= 512


@pytest.mark.parametrize("target", TARGETS)
def test_every_argument_of_every_variant_is_given_a_type_or_a_value(target: str):
    names = set()
    for variant in variants_of_triangle(target):
        arguments = set(variant.kernel.arg_names)
        assert set(variant.types) | set(variant.settings) == arguments, variant.name
        assert not set(variant.types) & set(variant.settings), variant.name
        assert set(variant.aligned) <= set(variant.types), variant.name
        assert variant.name not in names, variant.name
        names.add(variant.name)
    assert {name.split(" ")[0] for name in names} == {
        "gated_projection",
        "triangle_product",
        "attention_int8",
        "transition_int8",
    }
