from protquant.pipelines.bench.agreement import PAIRS, measure_agreement, summarize_agreement
from protquant.pipelines.bench.choices import (
    BACKENDS,
    DEFAULT_LM_BASELINES,
    LINEAR_SHAPES,
    LM_BASELINES,
    LM_PRESETS,
    TRUNK_BASELINES,
    TRUNK_PRESETS,
    WORKLOADS,
    LinearShape,
    Workload,
)
from protquant.pipelines.bench.contest import Contender, Ratio, Standing, run_contest
from protquant.pipelines.bench.fold import bench_fold
from protquant.pipelines.bench.lm import bench_lm
from protquant.pipelines.bench.machine import Machine, describe_machine
from protquant.pipelines.bench.ops import bench_ops
from protquant.pipelines.bench.peak_memory import PeakMemory, peak_memory
from protquant.pipelines.bench.report import BenchReport, Section
from protquant.pipelines.bench.roofline import GPUS, Prediction, roofline
from protquant.pipelines.bench.trunk import bench_trunk

__all__ = [
    "BACKENDS",
    "DEFAULT_LM_BASELINES",
    "GPUS",
    "LINEAR_SHAPES",
    "LM_BASELINES",
    "LM_PRESETS",
    "PAIRS",
    "TRUNK_BASELINES",
    "TRUNK_PRESETS",
    "WORKLOADS",
    "BenchReport",
    "Contender",
    "LinearShape",
    "Machine",
    "PeakMemory",
    "Prediction",
    "Ratio",
    "Section",
    "Standing",
    "Workload",
    "bench_fold",
    "bench_lm",
    "bench_ops",
    "bench_trunk",
    "describe_machine",
    "measure_agreement",
    "peak_memory",
    "roofline",
    "run_contest",
    "summarize_agreement",
]
