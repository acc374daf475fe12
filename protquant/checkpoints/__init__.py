"""Weights in and out: Hugging Face folders, fair-esm's files, protquant's own layout, and the names of all of them."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
