"""Integer execution on CPUs: oneDNN's int8 products as stock torch has them, with all else in few passes."""

from protquant.kernels.cpu.backend import CPUBackend
from protquant.kernels.cpu.features import Features, features

__all__ = ["CPUBackend", "Features", "features"]
