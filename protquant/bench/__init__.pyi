from protquant.bench.agreement import PAIRS, measure_agreement, summarize_agreement
from protquant.bench.choices import (
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
from protquant.bench.fold import bench_fold
from protquant.bench.lm import bench_lm
from protquant.bench.ops import bench_ops
from protquant.bench.paired_benchmark import Candidate, Ratio, Result, paired_benchmark
from protquant.bench.report import BenchReport, Section, allocator_note
from protquant.bench.roofline import GPUS, Prediction, roofline
from protquant.bench.trunk import bench_trunk

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
    "Candidate",
    "LinearShape",
    "Prediction",
    "Ratio",
    "Result",
    "Section",
    "Workload",
    "allocator_note",
    "bench_fold",
    "bench_lm",
    "bench_ops",
    "bench_trunk",
    "measure_agreement",
    "paired_benchmark",
    "roofline",
    "summarize_agreement",
]
