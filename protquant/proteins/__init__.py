"""Proteins in and out: FASTA, named atoms, PDB, mmCIF, PAE, tables, and the record of a run."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
