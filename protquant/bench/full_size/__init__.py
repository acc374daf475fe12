"""Measure time and memory to prepare and fold a model of the released size; each step has a process of its own."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
