from protquant.pipelines.auto import auto
from protquant.pipelines.calibration import calibration_sequences, gather_statistics, quantize
from protquant.pipelines.contacts import contacts_fasta, predict_contacts
from protquant.pipelines.datasheets import list_formats, list_recipes
from protquant.pipelines.demonstration import Demonstration, demonstrate
from protquant.pipelines.devices import pick_device
from protquant.pipelines.evaluate import Evaluation, evaluate
from protquant.pipelines.fold_fasta import fold_fasta
from protquant.pipelines.fold_run import FoldRun
from protquant.pipelines.folding import fold, fold_batch
from protquant.pipelines.format_table import draw_levels, format_table
from protquant.pipelines.inspect import inspect_model
from protquant.pipelines.memory import MemoryPlan, plan_memory
from protquant.pipelines.merge_shards import merge_shards
from protquant.pipelines.method_grid import load_method_grid
from protquant.pipelines.method_report import method_figure, methods_markdown, setting_tables
from protquant.pipelines.methods import MethodTable, compare_methods
from protquant.pipelines.plan_folding import FoldingPlan, plan_folding
from protquant.pipelines.plots import contact_figure, prediction_figure, save_figure
from protquant.pipelines.prepared import delete_prepared, list_prepared, prepare
from protquant.pipelines.quantize_model import quantize_checkpoint
from protquant.pipelines.ranges import range_by_length, range_figure
from protquant.pipelines.score import score
from protquant.pipelines.sensitivity import Sensitivity, sensitivity
from protquant.pipelines.sensitivity_plots import frontier_figure, sensitivity_figure
from protquant.pipelines.statistics_cache import DiskCache

__all__ = [
    "Demonstration",
    "DiskCache",
    "Evaluation",
    "FoldRun",
    "FoldingPlan",
    "MemoryPlan",
    "MethodTable",
    "Sensitivity",
    "auto",
    "calibration_sequences",
    "compare_methods",
    "contact_figure",
    "contacts_fasta",
    "delete_prepared",
    "demonstrate",
    "draw_levels",
    "evaluate",
    "fold",
    "fold_batch",
    "fold_fasta",
    "format_table",
    "frontier_figure",
    "gather_statistics",
    "inspect_model",
    "list_formats",
    "list_prepared",
    "list_recipes",
    "load_method_grid",
    "merge_shards",
    "method_figure",
    "methods_markdown",
    "pick_device",
    "plan_folding",
    "plan_memory",
    "predict_contacts",
    "prediction_figure",
    "prepare",
    "quantize",
    "quantize_checkpoint",
    "range_by_length",
    "range_figure",
    "save_figure",
    "score",
    "sensitivity",
    "sensitivity_figure",
    "setting_tables",
]
