from protquant.checkpoints import import_checkpoint, load, save_quantized
from protquant.choosing import auto, sensitivity
from protquant.errors import ProtquantError
from protquant.integer import integer_claim, to_integer
from protquant.measuring import compare_methods, evaluate, inspect_model, range_by_length, score
from protquant.predicting import contact_figure, contacts_fasta, fold, fold_fasta, predict_contacts, prediction_figure
from protquant.preparing import prepare, quantize, quantize_checkpoint
from protquant.quant import available_recipes, load_recipe
from protquant.structures import load_references, load_structure

__all__ = [
    "ProtquantError",
    "auto",
    "available_recipes",
    "compare_methods",
    "contact_figure",
    "contacts_fasta",
    "evaluate",
    "fold",
    "fold_fasta",
    "import_checkpoint",
    "inspect_model",
    "integer_claim",
    "load",
    "load_recipe",
    "load_references",
    "load_structure",
    "predict_contacts",
    "prediction_figure",
    "prepare",
    "quantize",
    "quantize_checkpoint",
    "range_by_length",
    "save_quantized",
    "score",
    "sensitivity",
    "to_integer",
]
