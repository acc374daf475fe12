"""Weights in and out: Hugging Face folders, fair-esm's files, protquant's own layout, and the names of all of them."""

from protquant.checkpoints.fair_esm import load_fair_esm
from protquant.checkpoints.hugging_face import load_hugging_face
from protquant.checkpoints.load import DEMO, import_checkpoint, load
from protquant.checkpoints.native import is_native, load_native, save_model
from protquant.checkpoints.registry import KNOWN, KnownCheckpoint, find_known

__all__ = [
    "DEMO",
    "KNOWN",
    "KnownCheckpoint",
    "find_known",
    "import_checkpoint",
    "is_native",
    "load",
    "load_fair_esm",
    "load_hugging_face",
    "load_native",
    "save_model",
]
