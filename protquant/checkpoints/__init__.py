"""Read and write checkpoints: Hugging Face folders, fair-esm's files, protquant's own layout, and tables of names."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
