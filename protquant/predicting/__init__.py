"""From sequences to structures and contacts: one protein, a batch, or a FASTA file that resumes."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
