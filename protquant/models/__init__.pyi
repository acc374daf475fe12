from protquant.models.alphabet import tokenize
from protquant.models.complexes import FoldingInput, encode_complexes
from protquant.models.configs import ESM2Config, ESMFoldConfig, StructureModuleConfig, TrunkConfig
from protquant.models.esm2 import ESM2, ESM2Output
from protquant.models.esmfold import ESMFold, ESMFoldOutput
from protquant.models.lineage import Lineage, add_to_lineage

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
