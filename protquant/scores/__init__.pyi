from protquant.scores.contacts import (
    CONTACT_BANDS,
    CONTACT_DEPTHS,
    CONTACT_DISTANCE,
    cb_distances,
    contact_precision,
    probability_drift,
)
from protquant.scores.gdt import gdt_ts
from protquant.scores.geometry import Geometry, measure_geometry
from protquant.scores.language import logit_kl, masked_accuracy, negative_log_likelihood, pseudo_perplexity
from protquant.scores.lddt import lddt_ca, lddt_ca_per_residue
from protquant.scores.match import match_residues
from protquant.scores.plddt import plddt_correlation, plddt_error
from protquant.scores.rmsd import rmsd_ca
from protquant.scores.structure_scores import Comparison, StructureScores, compare_structures, score_structures
from protquant.scores.superposition import Superposition, superimpose
from protquant.scores.tm import TMResult, tm_distance_scale, tm_score

__all__ = [
    "CONTACT_BANDS",
    "CONTACT_DEPTHS",
    "CONTACT_DISTANCE",
    "Comparison",
    "Geometry",
    "StructureScores",
    "Superposition",
    "TMResult",
    "cb_distances",
    "compare_structures",
    "contact_precision",
    "gdt_ts",
    "lddt_ca",
    "lddt_ca_per_residue",
    "logit_kl",
    "masked_accuracy",
    "match_residues",
    "measure_geometry",
    "negative_log_likelihood",
    "plddt_correlation",
    "plddt_error",
    "probability_drift",
    "pseudo_perplexity",
    "rmsd_ca",
    "score_structures",
    "superimpose",
    "tm_distance_scale",
    "tm_score",
]
