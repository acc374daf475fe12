"""What it costs to prepare and fold a model of the released size: each step in a process of its own."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
