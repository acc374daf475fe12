"""Memory of weights, and the setup of a model that is not loaded, from its sizes and a recipe."""

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from protquant.integer import integer_claim
from protquant.kernels.backend import Backend
from protquant.models import ESMFold, ProteinModel
from protquant.quant import Recipe, plan
from protquant.quant.assignments import Assignment, Assignments
from protquant.quant.decoded_weights import decoded_weights
from protquant.quant.modules import CodedWeight
from protquant.running.memory.process import resident_bytes_of_files
from protquant.running.memory.setup import DECODING, Runs, Setup, copies_of

if TYPE_CHECKING:
    from protquant.sites import Kind

__all__ = ["bytes_to_come", "setup_of_recipe", "weight_bytes"]

_FLOAT = 4
# Seven floats per output row on integers: scale and half of it, scale and shift of codes, bias and half of it, zeros.
_ROW_BYTES = 7 * 4
_GROUP_BYTES = 4 + 1  # a scale, and a zero point
_PAIR_BYTES = {"bfloat16": 2, "piecewise_linear": 1, "uniform": 1}


def weight_bytes(model: ProteinModel, recipe: Recipe, runs: Runs, dtype: torch.dtype = torch.float32) -> int:
    """Return the bytes that the weights take between runs of the model.

    Parameters
    ----------
    model : ProteinModel
        Float model; may be on the meta device.
    recipe : Recipe
        Recipe that quantizes the model.
    runs : str
        `float`: weights as floats. `integer`: codes, and other parameters as floats. `simulated`: the same, and decoded
        weights up to the bound of `decoded_weights`.
    dtype : torch.dtype
        Type of the floats; structure module and pLDDT head stay in float32.
    """
    exact = {id(parameter) for part in model.exact_parts() for parameter in part.parameters()}
    total = sum(p.numel() * (_FLOAT if id(p) in exact else dtype.itemsize) for p in model.parameters())
    if runs == "float":
        return total
    decoded = 0
    for assignment, bits, rows, columns in _coded_weights(model, plan(model, recipe)):
        groups = -(-columns // (getattr(assignment.format, "group_size", None) or columns))
        total += int(rows * columns * (bits / 8 - dtype.itemsize)) + rows * (_ROW_BYTES + (groups - 1) * _GROUP_BYTES)
        decoded += rows * columns * dtype.itemsize
    return total + (min(decoded, decoded_weights.limit) if runs == "simulated" else 0)


def bytes_to_come(model: ESMFold) -> int:
    """Return the bytes that a simulated model adds in its first run: codes from mapped files, and decoded weights."""
    packed = [module.packed_codes for module in model.modules() if isinstance(module, CodedWeight)]
    codes = [code for code in packed if code is not None]
    decoded = sum(4 * math.prod(code.shape) for code in codes)
    if decoded_weights.nbytes:
        return 0
    if model.device.type == "cuda":  # codes on the GPU are already counted
        return min(decoded, decoded_weights.limit)
    # Codes are read when they are first decoded; only pages next to their scales may already be resident.
    mapped = sum(code.packed.nbytes for code in codes)
    there = resident_bytes_of_files(Path(model.source).resolve(), ".safetensors") if model.source else 0
    return min(decoded, decoded_weights.limit) + max(0, mapped - there)


def _coded_weights(model: ProteinModel, assignments: Assignments) -> Iterator[tuple[Assignment, int, int, int]]:
    """Yield, for each matrix with codes, its assignment, bits per packed code, rows and columns."""
    for assignment in assignments:
        if assignment.site.kind == "linear_weight" and assignment.format is not None:
            rows, columns = model.get_parameter(f"{assignment.site.module}.weight").shape
            yield assignment, assignment.format.code_bits, rows, columns


def setup_of_recipe(
    model: ESMFold, recipe: Recipe, runs: Runs, backend: Backend | None, dtype: torch.dtype = torch.float32
) -> Setup:
    """Return the setup that a float model, which may be on the meta device, has after quantization by a recipe.

    The formats determine what runs on integers, as in `to_integer`.
    """
    if runs == "float":
        return Setup(model.config, runs, dtype.itemsize)
    copies: dict[Kind, float] = defaultdict(float)
    pair_bytes = dtype.itemsize
    assignments = plan(model, recipe)
    for assignment in assignments:
        site, format_ = assignment.site, assignment.format
        if format_ is None or site.is_weight:
            continue
        copies[site.kind] = max(copies[site.kind], copies_of(format_.name))
        if site.kind == "residual" and format_.code_bits <= (16 if format_.name == "bfloat16" else 8):
            pair_bytes = min(pair_bytes, _PAIR_BYTES.get(format_.name, dtype.itemsize))
    coded = list(_coded_weights(model, assignments))
    if runs == "simulated" or backend is None:
        decoded = sum(rows * columns for _, _, rows, columns in coded) * dtype.itemsize > decoded_weights.limit
        widest = max((rows * columns for _, _, rows, columns in coded), default=0) if decoded else 0
        return Setup(model.config, runs, dtype.itemsize, copies, unpacked_layer=DECODING * widest)
    layer = [item for item in coded if item[0].site.module.startswith("lm.layers.0.")]
    simulates = not integer_claim(recipe).claimed or any(map(_simulates_part, assignments))
    return Setup(
        model.config,
        runs,
        dtype.itemsize,
        copies if simulates else defaultdict(float),
        pair_bytes=pair_bytes,
        unpacked_layer=backend.unpacked_bytes([(bits, rows * columns) for _, bits, rows, columns in layer]),
        simulates_blocks=simulates,
        backend=backend,
    )


def _simulates_part(assignment: Assignment) -> bool:
    """Return whether the format of a site prevents its triangle update from running entirely on integers."""
    name, format_ = assignment.site.name, assignment.format
    if ".tri_attn_" in name:
        return format_ is not None and assignment.site.kind in ("softmax_input", "softmax_output")
    if ".tri_mul_" in name and assignment.site.kind == "matmul_operand":
        return format_ is None or not format_.needs_statistics or format_.code_bits > 8
    return False
