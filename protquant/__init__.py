"""protquant: post-training quantization of protein language and structure models.

The public verbs, for scripts and notebooks; every command calls one of them:

>>> import protquant as pq
>>> model = pq.load("demo")  # doctest: +SKIP
>>> quantized, report = pq.quantize(model, "w8a8-pwlq")  # doctest: +SKIP
>>> pq.fold(quantized, pq.load_references()[0].sequence)  # doctest: +SKIP
"""

from protquant.checkpoints import import_checkpoint, load, save_quantized
from protquant.errors import ProtquantError
from protquant.integer import integer_claim, to_integer
from protquant.pipelines import (
    auto,
    compare_methods,
    contact_figure,
    contacts_fasta,
    evaluate,
    fold,
    fold_fasta,
    inspect_model,
    predict_contacts,
    prediction_figure,
    quantize,
    quantize_checkpoint,
    range_by_length,
    score,
    sensitivity,
)
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
    "quantize",
    "quantize_checkpoint",
    "range_by_length",
    "save_quantized",
    "score",
    "sensitivity",
    "to_integer",
]
