from protquant.proteins.atom_files import check_atom_file, write_atoms
from protquant.proteins.atoms import atoms_from_atom37, chain_ids, check_atoms, residue_names
from protquant.proteins.b_factors import expected_error, with_expected_error
from protquant.proteins.fasta import Fasta, Record, Rejected, read_fasta, write_fasta
from protquant.proteins.mmcif import PAE_RESIDUES, write_mmcif
from protquant.proteins.names import MAX_NAME_LENGTH, Naming, header_names, safe_name, unique_names
from protquant.proteins.pae import write_pae
from protquant.proteins.pdb import PDBLimitError, write_pdb
from protquant.proteins.prediction import B_FACTORS, MAX_PAE, Prediction
from protquant.proteins.provenance import Provenance
from protquant.proteins.score_files import (
    write_colabfold_pae,
    write_colabfold_scores,
    write_iptm_table,
    write_pae_table,
    write_plddt_table,
    write_ptm_table,
)
from protquant.proteins.sequence import AMINO_ACIDS, SUBSTITUTIONS, SequenceError, clean_sequence, refuse_nucleotides

__all__ = [
    "AMINO_ACIDS",
    "B_FACTORS",
    "MAX_NAME_LENGTH",
    "MAX_PAE",
    "PAE_RESIDUES",
    "SUBSTITUTIONS",
    "Fasta",
    "Naming",
    "PDBLimitError",
    "Prediction",
    "Provenance",
    "Record",
    "Rejected",
    "SequenceError",
    "atoms_from_atom37",
    "chain_ids",
    "check_atom_file",
    "check_atoms",
    "clean_sequence",
    "expected_error",
    "header_names",
    "read_fasta",
    "refuse_nucleotides",
    "residue_names",
    "safe_name",
    "unique_names",
    "with_expected_error",
    "write_atoms",
    "write_colabfold_pae",
    "write_colabfold_scores",
    "write_fasta",
    "write_iptm_table",
    "write_mmcif",
    "write_pae",
    "write_pae_table",
    "write_pdb",
    "write_plddt_table",
    "write_ptm_table",
]
