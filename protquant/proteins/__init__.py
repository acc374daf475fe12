"""Reading sequences (FASTA, CSV) and writing predictions (PDB, mmCIF, PAE, tables of scores)."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
