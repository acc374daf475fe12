"""Options of the benchmarks; nothing here imports torch."""

from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

from protquant.bench.choices import (
    DEFAULT_LM_BASELINES,
    LINEAR_SHAPES,
    LM_BASELINES,
    LM_PRESETS,
    TRUNK_BASELINES,
    TRUNK_PRESETS,
    WORKLOADS,
    Workload,
)
from protquant.options import BackendName, CalibrationFile, Model, NumRecycles, Option, Structures

__all__ = ["AgreementOptions", "FoldBenchOptions", "LmOptions", "OpsOptions", "TrunkOptions"]

_Rounds = Annotated[int, Option("Number of timed runs of each candidate.", at_least=1)]
_Seed = Annotated[int, Option("Seed of the random weights and inputs.")]
_Quants = Annotated[
    Sequence[str | Path],
    Option("Recipe whose integer execution is timed; on the command line `none` is for none.", ("-q", "--quant")),
]


def _names(text: str, names: Iterable[str], flag: str = "") -> Option:
    return Option(f"{text}: {', '.join(names)}.", (flag,) if flag else ())


@dataclass(frozen=True, kw_only=True)
class _Kernels:
    """Options for kernels and device."""

    backend: Annotated[
        BackendName, Option("Kernels that multiply integers: `auto` (by device), `reference`, `cpu` or `triton`.")
    ] = "auto"
    device: Annotated[Any, Option("`torch.device`, or its name.", python_only=True)] = "cpu"
    progress: Annotated[bool | None, Option("Show a bar of progress.", none="on a terminal", python_only=True)] = None


@dataclass(frozen=True, kw_only=True)
class _Timing(_Kernels):
    """Options for rounds, threads and memory."""

    rounds: _Rounds = 5
    threads: Annotated[int | None, Option("Number of threads of each candidate.", none="torch's", at_least=1)] = None
    memory: Annotated[bool, Option("Measure the peak memory of activations too.", ("--memory",))] = False


@dataclass(frozen=True)
class OpsOptions(_Kernels):
    """Options of `bench_ops`."""

    shapes: Annotated[Sequence[str], _names("Linear layer", LINEAR_SHAPES, "--shape")] = tuple(LINEAR_SHAPES)
    _: KW_ONLY
    rounds: _Rounds = 20
    threads: Annotated[int | None, Option("Number of threads of each candidate.", none="torch's", at_least=1)] = None
    seed: _Seed = 0


@dataclass(frozen=True)
class TrunkOptions(_Timing):
    """Options of `bench_trunk`."""

    preset: Annotated[str, _names("Model whose block sizes are used", TRUNK_PRESETS)] = "esmfold_v1"
    length: Annotated[int, Option("Number of residues.", at_least=1)] = 256
    quants: _Quants = ()
    _: KW_ONLY
    baselines: Annotated[Sequence[str], _names("Baseline", TRUNK_BASELINES, "--baseline")] = TRUNK_BASELINES
    blocks: Annotated[int, Option("Number of blocks, one after the other.", at_least=1)] = 1
    chunk_size: Annotated[
        int | None, Option("Rows of triangle attention at a time, in float models.", none="all", at_least=1)
    ] = None
    seed: _Seed = 0


@dataclass(frozen=True)
class LmOptions(_Timing):
    """Options of `bench_lm`."""

    preset: Annotated[str, _names("Model whose sizes are used", LM_PRESETS)] = "esm2_t33_650M"
    workloads: Annotated[Sequence[Workload], _names("Batch of sequences", WORKLOADS, "--workload")] = tuple(WORKLOADS)
    quants: _Quants = ()
    _: KW_ONLY
    baselines: Annotated[Sequence[str], _names("Baseline", LM_BASELINES, "--baseline")] = DEFAULT_LM_BASELINES
    esm_cpp_python: Annotated[
        str | None,
        Option("Interpreter of an environment that has esm-cpp, which needs numpy below 2.", none="this one"),
    ] = None
    seed: _Seed = 0


@dataclass(frozen=True)
class FoldBenchOptions(_Timing):
    """Options of `bench_fold`."""

    model: Model = "demo"
    quants: _Quants = ()
    _: KW_ONLY
    fasta: Annotated[
        Path | None, Option("FASTA file whose first record is folded.", ("-i",), none="a shipped example")
    ] = None
    num_recycles: NumRecycles = None
    calibration: CalibrationFile = None


@dataclass(frozen=True)
class AgreementOptions(_Kernels):
    """Options of `measure_agreement`."""

    model: Model = "demo"
    quants: _Quants = ()
    _: KW_ONLY
    structures: Structures = None
    limit: Annotated[int | None, Option("Largest number of structures to use.", none="all", at_least=1)] = None
    num_recycles: NumRecycles = None
    calibration: CalibrationFile = None
