"""Options of public functions: types, defaults, bounds and help, each declared once; nothing here imports torch.

Functions, commands and Hydra's configs take their options from these groups.
"""

from protquant.options.choices import DRIFT_POWERS, MASK_EVERY, BackendName, DtypeName, TaskName, check_task
from protquant.options.choosing import AutoOptions, Drift, Granularity, Grouping, SensitivityOptions
from protquant.options.groups import CalibrationFile, CpuOnly, Model, NumRecycles, Structures
from protquant.options.measuring import (
    EvaluateOptions,
    FormatsOptions,
    InspectOptions,
    MethodsOptions,
    RangesOptions,
    ScoreOptions,
)
from protquant.options.option import Argument, Option, Parameter, kinds_of, parameters, takes
from protquant.options.predicting import ContactsOptions, DemoOptions, FoldOptions, MergeOptions, PlanOptions
from protquant.options.preparing import ImportOptions, QuantizeOptions

__all__ = [
    "DRIFT_POWERS",
    "MASK_EVERY",
    "Argument",
    "AutoOptions",
    "BackendName",
    "CalibrationFile",
    "ContactsOptions",
    "CpuOnly",
    "DemoOptions",
    "Drift",
    "DtypeName",
    "EvaluateOptions",
    "FoldOptions",
    "FormatsOptions",
    "Granularity",
    "Grouping",
    "ImportOptions",
    "InspectOptions",
    "MergeOptions",
    "MethodsOptions",
    "Model",
    "NumRecycles",
    "Option",
    "Parameter",
    "PlanOptions",
    "QuantizeOptions",
    "RangesOptions",
    "ScoreOptions",
    "SensitivityOptions",
    "Structures",
    "TaskName",
    "check_task",
    "kinds_of",
    "parameters",
    "takes",
]
