"""Predict structures and contacts: of one protein, a batch, or a FASTA file (resumably)."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
