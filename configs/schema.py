"""What the YAML files of the groups may hold: a wrong key or type in them is an error that Hydra names.

The group `quant` holds recipes, which `protquant.quant.load_recipe` parses once they are composed: the same files
serve `--quant`.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

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


class Dtype(StrEnum):
    """What the float parts of a model compute in; the names are torch's."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@dataclass
class ModelConfig:
    """The float model that a recipe starts from.

    Attributes
    ----------
    name_or_path : str
        As `protquant.load` takes it: `demo`, the name of a released model, a folder, a `.pt` file or a name on the
        hub.
    dtype : Dtype
    """

    name_or_path: str = MISSING
    dtype: Dtype = Dtype.float32


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


@dataclass
class DataConfig:
    """Reference structures to compare with, and sequences to calibrate on.

    Attributes
    ----------
    structures : str or None
        Folder of PDB or mmCIF files; None for the 50 chains that ship with protquant.
    limit : int, optional
        Only the first so many structures.
    calibration : str, optional
        FASTA file; by default the UniProt proteins that ship with protquant.
    heldout : str, optional
        FASTA file whose residues the task `language` hides; by default other UniProt proteins that ship.
    """

    structures: str | None = MISSING  # no default, or the ??? of folder.yaml would not stand against it
    limit: int | None = None
    calibration: str | None = None
    heldout: str | None = None


@dataclass
class TaskConfig:
    """What is predicted and scored.

    Attributes
    ----------
    name : str
        `structure`, `contacts` or `language`, as `protquant evaluate --task` has it.
    """

    name: str = MISSING


@dataclass
class StructureTask(TaskConfig):
    """Fold, and compare atoms.

    Attributes
    ----------
    num_recycles : int, optional
        How often the output goes through the trunk again; by default as the model was trained.
    chunk_size : int, optional
        Rows that triangle attention works on at a time: less memory, the same result.
    """

    name: str = "structure"
    num_recycles: int | None = None
    chunk_size: int | None = None


@dataclass
class ContactsTask(TaskConfig):
    """Predict contacts with a language model, and compare them with those of the structure."""

    name: str = "contacts"


@dataclass
class LanguageTask(TaskConfig):
    """Hide residues from a language model, and ask for them.

    Attributes
    ----------
    mask_every : int, optional
        How far apart the residues are that are hidden together; null hides one at a time, for as many passes.
    """

    name: str = "language"
    mask_every: int | None = 8


@dataclass
class SweepConfig:
    """One job of a sweep: a model, quantized by a recipe, on structures, for a task."""

    model: ModelConfig = field(default_factory=ModelConfig)
    quant: RecipeConfig = field(default_factory=RecipeConfig)
    data: DataConfig = field(default_factory=DataConfig)
    task: TaskConfig = field(default_factory=TaskConfig)


def register_schemas() -> None:
    """Give Hydra the schemas: of the whole, and of each task; may be called again."""
    store = ConfigStore.instance()
    store.store(name="sweep_schema", node=SweepConfig, provider="protquant")
    # In a group of their own, so that task=glob(*) sweeps over tasks alone.
    store.store(group="schema/task", name="structure", node=StructureTask, provider="protquant")
    store.store(group="schema/task", name="contacts", node=ContactsTask, provider="protquant")
    store.store(group="schema/task", name="language", node=LanguageTask, provider="protquant")
