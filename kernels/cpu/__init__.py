"""Integer execution on CPUs: oneDNN's int8 products from stock torch, and few passes over memory for the rest."""

from protquant.kernels.cpu.backend import CPUBackend
from protquant.kernels.cpu.features import Features, features

__all__ = ["CPUBackend", "Features", "features"]
