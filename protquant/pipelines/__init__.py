"""What the commands call: models, recipes, files and scores put together."""

from protquant.pipelines.auto import auto
from protquant.pipelines.calibration import calibration_sequences, gather_statistics, quantize
from protquant.pipelines.contacts import contacts_fasta, predict_contacts
from protquant.pipelines.evaluate import Evaluation, evaluate
from protquant.pipelines.fold_fasta import FoldRun, fold_fasta
from protquant.pipelines.folding import fold, fold_batch
from protquant.pipelines.format_table import draw_levels, format_table
from protquant.pipelines.inspect import inspect_model
from protquant.pipelines.memory import MemoryPlan, plan_memory
from protquant.pipelines.methods import MethodTable, compare_methods
from protquant.pipelines.plots import contact_figure, prediction_figure
from protquant.pipelines.quantize_model import quantize_checkpoint
from protquant.pipelines.ranges import range_by_length
from protquant.pipelines.score import score
from protquant.pipelines.sensitivity import sensitivity

__all__ = [
    "Evaluation",
    "FoldRun",
    "MemoryPlan",
    "MethodTable",
    "auto",
    "calibration_sequences",
    "compare_methods",
    "contact_figure",
    "contacts_fasta",
    "draw_levels",
    "evaluate",
    "fold",
    "fold_batch",
    "fold_fasta",
    "format_table",
    "gather_statistics",
    "inspect_model",
    "plan_memory",
    "predict_contacts",
    "prediction_figure",
    "quantize",
    "quantize_checkpoint",
    "range_by_length",
    "score",
    "sensitivity",
]
