"""Benchmarks: our float and integer execution beside other implementations, in alternation; and their agreement."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
