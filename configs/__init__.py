"""Hydra configuration of sweeps: `sweep.yaml` and the groups `model`, `quant`, `data`, `task`.

Importing the package gives Hydra the schemas that the YAML files are checked against.
"""

from protquant.configs.schema import (
    ContactsTask,
    DataConfig,
    Dtype,
    LanguageTask,
    ModelConfig,
    StructureTask,
    SweepConfig,
    TaskConfig,
    register_schemas,
)

__all__ = [
    "ContactsTask",
    "DataConfig",
    "Dtype",
    "LanguageTask",
    "ModelConfig",
    "StructureTask",
    "SweepConfig",
    "TaskConfig",
    "register_schemas",
]

register_schemas()
