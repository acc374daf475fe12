"""Benchmarks: our float and integer execution against others', by turns in one process; and what integers change."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
