"""`protquant bench ops`: one linear layer, in the shapes of ESM-2 and the folding trunk."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from protquant.bench.choices import LINEAR_SHAPES, LinearShape, check_backend, check_names
from protquant.bench.options import OpsOptions
from protquant.bench.paired_benchmark import Candidate, paired_benchmark
from protquant.bench.report import RATIO_NOTE, BenchReport, Section
from protquant.bench.worker import Run
from protquant.bench.worker_process import count_threads
from protquant.kernels.backend import Backend
from protquant.kernels.dispatch import choose_backend
from protquant.kernels.operands import Codes8, Grid, IntegerWeight, TokenGrid
from protquant.kernels.packing import pack4
from protquant.options import takes
from protquant.reporting.machine import describe_machine

__all__ = ["bench_ops"]

_BASELINES = ("float32", "bfloat16")
_GROUP = 64
_NOTES = {
    "float32": "F.linear",
    "bfloat16": "F.linear",
    "torch int8": "torch._int_mm: codes to int32, without scales and bias",
    "int8": "codes to float32",
    "int8 to codes": "codes to codes",
    "int8 by token": "float32, quantized row by row, to float32",
    "int4": f"codes to float32; weights in groups of {_GROUP}",
}
"""Candidates with their descriptions; the baselines are first."""
_CODES_OF_WEIGHTS = 127


@takes(OpsOptions)
def bench_ops(options: OpsOptions) -> BenchReport:
    """Time linear layers in float, torch's bare int8 product, and ours.

    Returns
    -------
    BenchReport
        A section for each shape. The deviation is the relative difference from float32.

    Raises
    ------
    ProtquantError
        If a name is not known, or a number is out of range.
    """
    check_names("--shape", options.shapes, list(LINEAR_SHAPES))
    check_backend(options.backend)
    threads, device = count_threads(options.threads), torch.device(options.device)
    sections = []
    for shape in dict.fromkeys(options.shapes):
        given = {"shape": shape, "backend": options.backend, "seed": options.seed, "device": str(device)}
        results = paired_benchmark(
            [Candidate(name, linear_layer, {"name": name, **given}, notes) for name, notes in _NOTES.items()],
            _BASELINES,
            rounds=options.rounds,
            warmups=2,
            threads=threads,
            device=device.type,
            progress=options.progress,
        )
        sections.append(Section(str(LINEAR_SHAPES[shape]), results, _BASELINES))
    settings = {
        "shapes": list(options.shapes),
        "rounds": options.rounds,
        "threads": threads,
        "backend": options.backend,
    }
    settings |= {"device": device.type, "seed": options.seed}
    notes = (
        RATIO_NOTE,
        "deviation: of the result from float32; rounding of weights and activations, no fault of a kernel.",
    )
    return BenchReport("ops", settings, replace(describe_machine(), threads=threads), sections, notes)


def linear_layer(name: str, shape: str, backend: str, seed: int, device: str) -> Run:
    """Return a worker's run of one of the candidates."""
    with torch.inference_mode():
        layer = _Layer(LINEAR_SHAPES[shape], torch.device(device), backend, seed)
        run = layer.run(name)
    return Run(torch.inference_mode()(run), layer.decode)


class _Layer:
    """Random activations and a random layer, in floats and in codes."""

    def __init__(self, shape: LinearShape, device: torch.device, backend: str, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(shape.rows, shape.reads, generator=generator)
        weight = torch.randn(shape.writes, shape.reads, generator=generator) / shape.reads**0.5
        self.bias = torch.randn(shape.writes, generator=generator).to(device)
        self.x, self.weight = x.to(device), weight.to(device)
        self.grid = _symmetric(self.x)
        # The output grid is symmetric too: outputs are as large as inputs.
        self.out = _symmetric(F.linear(self.x, self.weight, self.bias))
        self.scale = self.weight.abs().amax(1, keepdim=True) / _CODES_OF_WEIGHTS
        self.codes = (self.weight / self.scale).round().to(torch.int8)
        self.device, self.backend_name = device, backend

    def run(self, name: str) -> Callable[[], Any]:
        """Return the timed function of a candidate."""
        half = [tensor.to(torch.bfloat16) for tensor in (self.x, self.weight, self.bias)]
        runs: dict[str, Callable[[], Callable[[], Any]]] = {
            "float32": lambda: lambda: F.linear(self.x, self.weight, self.bias),
            "bfloat16": lambda: lambda: F.linear(*half),
            "torch int8": self._int_mm,
            "int8": lambda: self._integer(self._int8()),
            "int8 to codes": lambda: self._integer(self._int8(), to_codes=True),
            "int8 by token": self._by_token,
            "int4": lambda: self._integer(self._int4()),
        }
        return runs[name]()

    @torch.inference_mode()
    def decode(self, result: Any) -> np.ndarray:
        """Return the float values of a candidate's result, which may be codes."""
        if isinstance(result, Codes8):
            result = result.decode()
        elif result.dtype == torch.int32:
            result = result * (self.grid.scale * self.scale.T) + self.bias
        values: np.ndarray = result.float().cpu().numpy()
        return values

    def _int_mm(self) -> Callable[[], Tensor]:
        x = (self.x / self.grid.scale).round().to(torch.int8)
        weight = self.codes.T
        return lambda: torch._int_mm(x, weight)  # noqa: SLF001 (the int8 product of stock torch has no other name)

    def _int8(self) -> IntegerWeight:
        return IntegerWeight(self.codes, self.scale, None, self.bias, len(self.codes))

    def _int4(self) -> IntegerWeight:
        groups = self.weight.unflatten(1, (-1, _GROUP))
        scale = groups.abs().amax(2) / 7
        codes = (groups / scale[..., None]).round().add(8).flatten(1).to(torch.uint8)
        zero = torch.full(scale.shape, 8, dtype=torch.uint8, device=scale.device)
        packed = pack4(codes)
        return IntegerWeight(packed, scale, zero, self.bias, len(codes), "int4", _GROUP)

    def _backend(self) -> Backend:
        return choose_backend(self.backend_name, self.device)

    def _integer(self, weight: IntegerWeight, to_codes: bool = False) -> Callable[[], Tensor | Codes8]:
        backend = self._backend()
        outs = [(self.out, weight.out_features)] if to_codes else []
        layer, x = backend.prepare(weight, self.grid, outs=outs), backend.quantize(self.x, self.grid)
        # A weight of four bits is unpacked for every call, as in a model that calls a layer once.
        if to_codes:
            return lambda: backend.linear_codes(x, backend.unpacked(layer))
        return lambda: backend.linear(x, backend.unpacked(layer))

    def _by_token(self) -> Callable[[], Tensor]:
        backend, grid = self._backend(), TokenGrid(8, symmetric=True)
        layer = backend.prepare(self._int8(), grid)
        return lambda: backend.linear(backend.quantize(self.x, grid), layer)


def _symmetric(x: Tensor) -> Grid:
    return Grid(float(x.abs().max()) / 127, 0, -127, 127)
