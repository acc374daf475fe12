"""Schemas of the YAML files, made of the options of `evaluate`: Hydra names a wrong key or type in the files.

The group `quant` holds recipes, which `protquant.quant.load_recipe` parses once they are composed: the same files
serve `--quant`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from protquant.options import DtypeName, EvaluateOptions, kinds_of, parameters
from protquant.quant import Calibration, Recipe

__all__ = [
    "CalibrationConfig",
    "ContactsTask",
    "DataConfig",
    "Dtype",
    "LanguageTask",
    "ModelConfig",
    "RecipeConfig",
    "StructureTask",
    "SweepConfig",
    "TaskConfig",
    "register_schemas",
]

Dtype = StrEnum("Dtype", {name: name for name in get_args(DtypeName)})  # type: ignore[misc]  # OmegaConf knows no Literal
_OPTIONS = {each.name: each for each in parameters(EvaluateOptions)}


def _schema(title: str, /, *options: str, base: type = object, **defaults: Any) -> Any:
    """Return a dataclass with these options of `evaluate`, some of them with other defaults."""
    declared = []
    for key in (*defaults, *(each for each in options if each not in defaults)):
        option = _OPTIONS.get({"name_or_path": "models"}.get(key, key))
        kind, default = (str, "") if option is None else (_plain(option.type), option.default)
        metadata = {} if option is None else {"option": option.option}
        declared.append((key, kind, field(default=defaults.get(key, default), metadata=metadata)))
    return make_dataclass(title, declared, bases=(base,), namespace={"__module__": __name__})


@dataclass
class CalibrationConfig:
    """`protquant.quant.Calibration` in the types that Hydra has."""

    range: str = Calibration.range
    top_k: int = Calibration.top_k
    percentile: float = Calibration.percentile
    lengths: str | None = Calibration.lengths


@dataclass
class RecipeConfig:
    """`protquant.quant.Recipe` as plain data, in the types that Hydra has."""

    name: str = Recipe.name
    description: str = Recipe.description
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    kinds: dict[str, Any] = field(default_factory=dict)
    sites: dict[str, Any] = field(default_factory=dict)
    exclude: list[str] = field(default_factory=lambda: list(Recipe().exclude))
    steps: list[dict[str, Any]] = field(default_factory=list)
    propagate: str = Recipe.propagate
    execution: str = Recipe.execution


def _plain(kind: Any) -> Any:
    """Return a type of options as OmegaConf knows it; of several models or recipes, that of one."""
    known = {Path: str, Sequence: str, Literal: Dtype}
    return Union[tuple(known.get(get_origin(each) or each, each) for each in kinds_of(kind))]  # noqa: UP007


ModelConfig = _schema("ModelConfig", "dtype", name_or_path=MISSING)
# `structures` has no default, or the ??? of folder.yaml would not stand against it.
DataConfig = _schema("DataConfig", "limit", "calibration", "heldout", structures=MISSING)
TaskConfig = _schema("TaskConfig", name=MISSING)
StructureTask = _schema("StructureTask", "num_recycles", "chunk_size", base=TaskConfig, name="structure")
ContactsTask = _schema("ContactsTask", base=TaskConfig, name="contacts")
LanguageTask = _schema("LanguageTask", "mask_every", base=TaskConfig, name="language")
SweepConfig = make_dataclass(
    "SweepConfig",
    [
        ("model", ModelConfig, field(default_factory=ModelConfig)),
        ("quant", RecipeConfig, field(default_factory=RecipeConfig)),
        ("data", DataConfig, field(default_factory=DataConfig)),
        ("task", TaskConfig, field(default_factory=TaskConfig)),
    ],
    namespace={"__module__": __name__},
)


def _help() -> str:
    """Return a line for each key of the groups: what its option is."""
    groups = [("model", ModelConfig), ("data", DataConfig), ("task", StructureTask), ("task", LanguageTask)]
    declared = {f"{group}.{each.name}": each.metadata for group, schema in groups for each in fields(schema)}
    return "\n".join(f"{key}: {each['option'].help}" for key, each in declared.items() if each)


def register_schemas() -> None:
    """Give Hydra the schemas, of the whole and of each task, and the texts of `--help`; may be called again."""
    OmegaConf.register_new_resolver("protquant.help", _help, replace=True)
    store = ConfigStore.instance()
    store.store(name="sweep_schema", node=SweepConfig, provider="protquant")
    # In a group of their own, so that task=glob(*) sweeps over tasks alone.
    for name, node in (("structure", StructureTask), ("contacts", ContactsTask), ("language", LanguageTask)):
        store.store(group="schema/task", name=name, node=node, provider="protquant")
