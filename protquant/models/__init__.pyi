from protquant.models.alphabet import tokenize
from protquant.models.complexes import FoldingInput, encode_complexes
from protquant.models.configs import ESM2Config, ESMFoldConfig, StructureModuleConfig, TrunkConfig
from protquant.models.esm2 import ESM2, ESM2Output
from protquant.models.esmfold import ESMFold
from protquant.models.folding_output import ESMFoldOutput
from protquant.models.lineage import Lineage, add_to_lineage
from protquant.models.protocol import LanguageModel, ProteinModel
from protquant.models.registry import MODELS, register_model

__all__ = [
    "ESM2",
    "MODELS",
    "ESM2Config",
    "ESM2Output",
    "ESMFold",
    "ESMFoldConfig",
    "ESMFoldOutput",
    "FoldingInput",
    "LanguageModel",
    "Lineage",
    "ProteinModel",
    "StructureModuleConfig",
    "TrunkConfig",
    "add_to_lineage",
    "encode_complexes",
    "register_model",
    "tokenize",
]
