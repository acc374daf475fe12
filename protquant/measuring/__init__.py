"""Measure the cost of quantization: scores against references, drift, tables of methods."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
