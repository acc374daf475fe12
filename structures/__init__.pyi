from protquant.structures.collection import load_references
from protquant.structures.protein_atoms import keep_protein
from protquant.structures.reader import load_structure
from protquant.structures.reference import Reference, reference_from_atoms

__all__ = ["Reference", "keep_protein", "load_references", "load_structure", "reference_from_atoms"]
