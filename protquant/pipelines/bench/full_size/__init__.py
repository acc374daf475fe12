"""What it costs to prepare and fold a model of the released size: each step in a process of its own."""

from protquant.pipelines.bench.full_size.checkpoint import make_checkpoint, sizes_like
from protquant.pipelines.bench.full_size.claims import Claim
from protquant.pipelines.bench.full_size.plan import FLOAT_CONTENDERS, FULL_SIZE, Fold, Plan, Preparation
from protquant.pipelines.bench.full_size.report import FullSizeReport
from protquant.pipelines.bench.full_size.run import PARTS, bench_full_size

__all__ = [
    "FLOAT_CONTENDERS",
    "FULL_SIZE",
    "PARTS",
    "Claim",
    "Fold",
    "FullSizeReport",
    "Plan",
    "Preparation",
    "bench_full_size",
    "make_checkpoint",
    "sizes_like",
]
