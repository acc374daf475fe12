"""Constants of amino acid residues that several packages use."""

__all__ = ["AMINO_ACIDS", "MAX_CA_DISTANCE", "NEAREST_AMINO_ACID", "VIRTUAL_CB"]

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
"""The 20 standard amino acids."""

NEAREST_AMINO_ACID = {
    "U": "C",  # selenocysteine: cysteine with selenium for sulfur
    "O": "K",  # pyrrolysine: lysine with a ring on its side chain
    "B": "D",  # aspartate or asparagine (Asx)
    "Z": "E",  # glutamate or glutamine (Glx)
    "J": "L",  # leucine or isoleucine
}
"""Letters outside the twenty, and the standard amino acid that is nearest in chemistry."""

MAX_CA_DISTANCE = 4.5
"""Largest distance of neighboring C-alphas of a chain, in angstrom (3.8 trans, 2.9 cis), with a margin."""

VIRTUAL_CB = (-0.58273431, 0.56802827, -0.54067466)
"""Coefficients of (CA-N)x(C-CA), CA-N and C-CA that place an ideal C-beta (Dauparas et al. 2022, ProteinMPNN)."""
