from protquant.checkpoints.fair_esm import load_fair_esm
from protquant.checkpoints.float_checkpoint import FloatCheckpoint
from protquant.checkpoints.folders import check_new_folder
from protquant.checkpoints.hugging_face import load_hugging_face
from protquant.checkpoints.load import DEMO, import_checkpoint, load, open_checkpoint, scheme_of
from protquant.checkpoints.native import is_native, load_native, save_model
from protquant.checkpoints.quantized import is_quantized, load_quantized, save_quantized
from protquant.checkpoints.registry import (
    KNOWN,
    KnownCheckpoint,
    Layout,
    find_known,
    register_checkpoint,
    register_layout,
)
from protquant.checkpoints.scheme import Scheme, read_scheme
from protquant.checkpoints.skeleton import skeleton

__all__ = [
    "DEMO",
    "KNOWN",
    "FloatCheckpoint",
    "KnownCheckpoint",
    "Layout",
    "Scheme",
    "check_new_folder",
    "find_known",
    "import_checkpoint",
    "is_native",
    "is_quantized",
    "load",
    "load_fair_esm",
    "load_hugging_face",
    "load_native",
    "load_quantized",
    "open_checkpoint",
    "read_scheme",
    "register_checkpoint",
    "register_layout",
    "save_model",
    "save_quantized",
    "scheme_of",
    "skeleton",
]
