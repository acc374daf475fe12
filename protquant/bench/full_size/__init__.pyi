from protquant.bench.full_size.checkpoint import make_checkpoint, sizes_like
from protquant.bench.full_size.claims import Claim
from protquant.bench.full_size.memory_promise import (
    COMBINATIONS,
    COMBINATIONS_ON_GPU,
    Combination,
    PromiseReport,
    bench_memory,
)
from protquant.bench.full_size.plan import (
    FLOAT_CANDIDATES,
    FULL_SIZE,
    FULL_SIZE_ON_GPU,
    Fold,
    Plan,
    Preparation,
)
from protquant.bench.full_size.report import FullSizeReport
from protquant.bench.full_size.run import bench_full_size

__all__ = [
    "COMBINATIONS",
    "COMBINATIONS_ON_GPU",
    "FLOAT_CANDIDATES",
    "FULL_SIZE",
    "FULL_SIZE_ON_GPU",
    "Claim",
    "Combination",
    "Fold",
    "FullSizeReport",
    "Plan",
    "Preparation",
    "PromiseReport",
    "bench_full_size",
    "bench_memory",
    "make_checkpoint",
    "sizes_like",
]
