from protquant.measuring.datasheets import list_formats, list_recipes
from protquant.measuring.demonstration import Demonstration, demonstrate
from protquant.measuring.evaluate import Evaluation, evaluate
from protquant.measuring.format_table import draw_levels, format_table
from protquant.measuring.inspect import inspect_model
from protquant.measuring.method_grid import load_method_grid
from protquant.measuring.method_report import method_figure, methods_markdown, setting_tables
from protquant.measuring.methods import MethodTable, compare_methods
from protquant.measuring.ranges import range_by_length, range_figure
from protquant.measuring.score import score

__all__ = [
    "Demonstration",
    "Evaluation",
    "MethodTable",
    "compare_methods",
    "demonstrate",
    "draw_levels",
    "evaluate",
    "format_table",
    "inspect_model",
    "list_formats",
    "list_recipes",
    "load_method_grid",
    "method_figure",
    "methods_markdown",
    "range_by_length",
    "range_figure",
    "score",
    "setting_tables",
]
