"""Float forward passes of ESM-2 and ESMFold, written for quantization: every tensor of interest is a site."""

from protquant.models.alphabet import tokenize
from protquant.models.complexes import FoldingInput, encode_complexes
from protquant.models.esm2 import ESM2, ESM2Config, ESM2Output
from protquant.models.esmfold import ESMFold, ESMFoldConfig, ESMFoldOutput
from protquant.models.lineage import Lineage, add_to_lineage
from protquant.models.structure_module import StructureModuleConfig
from protquant.models.trunk import TrunkConfig

__all__ = [
    "ESM2",
    "ESM2Config",
    "ESM2Output",
    "ESMFold",
    "ESMFoldConfig",
    "ESMFoldOutput",
    "FoldingInput",
    "Lineage",
    "StructureModuleConfig",
    "TrunkConfig",
    "add_to_lineage",
    "encode_complexes",
    "tokenize",
]
