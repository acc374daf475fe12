"""Options of the commands that measure a model of the released size; nothing here imports torch."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

from protquant.bench.choices import FULL_SIZE_PARTS
from protquant.options import Argument, CalibrationFile, CpuOnly, Option

__all__ = ["FullSizeOptions", "MakeCheckpointOptions", "MemoryOptions"]

_Checkpoint = Annotated[Path, Argument("Folder that `protquant bench make-checkpoint` wrote.")]
_Quants = Annotated[
    Sequence[str], Option("Use only this recipe of the benchmark.", ("-q", "--quant"), none="all its recipes")
]
_Recycles = Annotated[int, Option("Number of recycles of each protein.")]
_Seed = Annotated[int, Option("Seed of the random sequences.")]
_Threads = Annotated[int | None, Option("Number of threads to compute with.", none="torch's", at_least=1)]


@dataclass(frozen=True)
class MakeCheckpointOptions:
    """Options of `bench make-checkpoint`."""

    folder: Annotated[Path, Argument("Folder to make.")]
    _: KW_ONLY
    like: Annotated[str, Option("Released folding model whose layout and sizes are used.")] = "esmfold_v1"
    layers: Annotated[int | None, Option("Number of layers of the language model.", none="as released")] = None
    width: Annotated[int | None, Option("Number of channels of the language model.", none="as released")] = None
    blocks: Annotated[int | None, Option("Number of blocks of the trunk.", none="as released")] = None
    seed: Annotated[int, Option("Seed of the random weights.")] = 0


@dataclass(frozen=True)
class FullSizeOptions:
    """Options of `bench full-size`."""

    checkpoint: _Checkpoint
    folder: Annotated[
        Path,
        Option(
            "Folder for quantized checkpoints, results and logs. A later run uses the results that are there.",
            ("--work",),
        ),
    ]
    _: KW_ONLY
    parts: Annotated[Sequence[str], Option(f"Run only this part: {', '.join(FULL_SIZE_PARTS)}.", ("--part",))] = (
        FULL_SIZE_PARTS
    )
    quants: _Quants = ()
    contenders: Annotated[
        Sequence[str],
        Option(
            "Candidate that is timed: `transformers-float32`, `transformers-bfloat16` or a recipe.",
            ("--contender",),
            none="all candidates",
        ),
    ] = ()
    lengths: Annotated[
        Sequence[int],
        Option(
            "Number of residues of a protein that all candidates fold.",
            ("--length",),
            none="64, 128, 256; on a GPU 256, 512, 1024",
            at_least=1,
        ),
    ] = ()
    rounds: Annotated[int, Option("Number of timed runs of each candidate.", at_least=1)] = 3
    threads: _Threads = None
    num_recycles: _Recycles = 0
    again: Annotated[
        Sequence[str],
        Option(
            "Stage to repeat although its result is in the folder: its name, or how its name begins; `all` repeats"
            " every stage."
        ),
    ] = ()
    calibration: CalibrationFile = None
    cpu_only: CpuOnly = False
    seed: _Seed = 0


@dataclass(frozen=True)
class MemoryOptions:
    """Options of `bench memory`."""

    checkpoint: _Checkpoint
    folder: Annotated[Path, Option("Folder of `bench full-size`, with quantized checkpoints and results.", ("--work",))]
    _: KW_ONLY
    quants: _Quants = ()
    threads: _Threads = None
    num_recycles: _Recycles = 1
    again: Annotated[bool, Option("Repeat runs whose results are in the folder.", ("--again",))] = False
    cpu_only: CpuOnly = False
    seed: _Seed = 0
