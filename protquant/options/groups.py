"""Options that several functions share: types of single options, and groups of those that always go together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from protquant.options.choices import BackendName, DtypeName, ExecutionName
from protquant.options.option import Option

__all__ = [
    "Calibration",
    "CalibrationFile",
    "CpuOnly",
    "Device",
    "EvenSo",
    "FoldingMemory",
    "Model",
    "NumRecycles",
    "OutputFolder",
    "Overwrite",
    "Precision",
    "Prediction",
    "Preparation",
    "Quant",
    "Running",
    "Seed",
    "Structures",
]

Model = Annotated[
    str,
    Option(
        "Model: `demo`, a released name such as `esmfold_v1`, a folder, a `.pt` file, or a name on the hub.", ("-m",)
    ),
]
Quant = Annotated[
    str,
    Option(
        "Recipe: a name of `protquant recipes`, or a YAML file. `fp32` quantizes nothing; give it for a model that is"
        " quantized already.",
        ("-q",),
    ),
]
OutputFolder = Annotated[Path, Option("Folder for the results; it is made if it does not exist.", ("-o",))]
NumRecycles = Annotated[
    int | None, Option("Number of times that the trunk's output is fed back to it.", none="as many as in training")
]
Structures = Annotated[Path | None, Option("Folder of PDB or mmCIF files.", none="the 50 shipped chains")]
EvenSo = Annotated[
    bool,
    Option(
        "Ask the demo model about sequences that it has not memorized, too (its answers mean nothing), and take DNA or"
        " RNA for proteins; otherwise such records fail.",
        ("--even-so",),
    ),
]
Overwrite = Annotated[bool, Option("Replace the checkpoint that is in the folder; never a folder of other files.")]
Seed = Annotated[int, Option("Seed of the random numbers that recipes draw when they train.")]


CpuOnly = Annotated[bool, Option("Do not use a GPU.", ("--cpu-only",))]
CalibrationFile = Annotated[
    Path | None, Option("FASTA file of sequences to calibrate on.", none="12 shipped UniProt proteins")
]


@dataclass(frozen=True, kw_only=True)
class Running:
    """Options for the execution of a quantized model."""

    execution: Annotated[
        ExecutionName | None,
        Option(
            "Execution of a quantized model: `simulate` in float, or `integer` on codes.", none="what the recipe says"
        ),
    ] = None
    backend: Annotated[
        BackendName, Option("Kernels that multiply integers: `auto` (by device), `reference`, `cpu` or `triton`.")
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class Device:
    """The device of a model."""

    cpu_only: CpuOnly = False


@dataclass(frozen=True, kw_only=True)
class Precision(Device):
    """The device of a model, and the number type of its float parts."""

    dtype: Annotated[
        DtypeName, Option("Number type of the model's float parts: `float32`, `bfloat16` or `float16`.")
    ] = "float32"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Sequences for the calibration of ranges."""

    calibration: CalibrationFile = None


@dataclass(frozen=True, kw_only=True)
class Preparation(Calibration):
    """How a model is quantized before it predicts."""

    cache: Annotated[
        bool,
        Option("Keep the quantized model in the cache folder, and load it from there; otherwise quantize in memory."),
    ] = True


@dataclass(frozen=True, kw_only=True)
class FoldingMemory:
    """Options that set memory and time of folding."""

    num_recycles: NumRecycles = None
    max_tokens_per_batch: Annotated[
        int, Option("Number of residues of short sequences to fold together; 0 folds one sequence at a time.")
    ] = 1024
    chunk_size: Annotated[
        int | None,
        Option("Rows of the pair representation that float blocks work on at a time.", none="the most that fit"),
    ] = None
    max_memory: Annotated[
        int | str | None,
        Option(
            "Memory that the whole process may take (on a GPU, its tensors there), in bytes or such as `12GiB`. What"
            " does not fit is refused before a model is loaded.",
            none="what is free",
            metavar="AMOUNT",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Prediction(Preparation, Precision, Running):
    """Options for the predictions of a file's records."""

    plots: Annotated[bool, Option("Draw a picture of each prediction.")] = True
    overwrite: Annotated[bool, Option("Predict records again that are done already.")] = False
    even_so: EvenSo = False
