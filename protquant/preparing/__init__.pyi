from protquant.preparing.prepared import delete_prepared, list_prepared, prepare
from protquant.preparing.quantize import calibration_sequences, gather_statistics, quantize
from protquant.preparing.quantize_checkpoint import quantize_checkpoint
from protquant.preparing.statistics_cache import DiskCache

__all__ = [
    "DiskCache",
    "calibration_sequences",
    "delete_prepared",
    "gather_statistics",
    "list_prepared",
    "prepare",
    "quantize",
    "quantize_checkpoint",
]
