"""Options of the functions that measure: scores of files, tables of recipes and methods, reports on a model."""

from collections.abc import Collection, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Union

from protquant.options.choices import MASK_EVERY, TaskName
from protquant.options.groups import (
    Calibration,
    Device,
    Model,
    NumRecycles,
    Precision,
    Quant,
    Running,
    Seed,
    Structures,
)
from protquant.options.option import Argument, Option
from protquant.quant.lengths import DEFAULT_BINS, LengthBin, parse_lengths

if TYPE_CHECKING:
    import protquant.models
    import protquant.quant

__all__ = [
    "EvaluateOptions",
    "FormatsOptions",
    "InspectOptions",
    "MethodsOptions",
    "RangesOptions",
    "ScoreOptions",
]


@dataclass(frozen=True)
class ScoreOptions:
    """Options of `score`."""

    prediction: Annotated[Path, Argument("Predicted structure: PDB, mmCIF or BinaryCIF, plain or gzipped.")]
    reference: Annotated[Path, Argument("Reference structure, in one of the same formats.")]
    _: KW_ONLY
    chains: Annotated[Sequence[str], Option("Only this chain of the prediction.", ("--chain",), none="all chains")] = ()
    reference_chains: Annotated[
        Sequence[str], Option("Only this chain of the reference.", ("--reference-chain",), none="all chains")
    ] = ()
    superposed: Annotated[
        Path | None,
        Option("File for the prediction's heavy protein atoms, superposed on the reference: .pdb or .cif."),
    ] = None


@dataclass(frozen=True)
class InspectOptions(Calibration, Running):
    """Options of `inspect_model`."""

    model: Model = "demo"
    quant: Quant = "fp32"
    _: KW_ONLY
    lengths: Annotated[
        tuple[int, ...],
        Option("Numbers of residues for which the peak memory of folding is predicted.", python_only=True),
    ] = (128, 256, 512, 1024)


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Options for the data of a measurement."""

    structures: Structures = None
    heldout: Annotated[
        Path | None,
        Option("FASTA file whose residues are hidden from language models.", none="20 shipped UniProt proteins"),
    ] = None
    limit: Annotated[int | None, Option("Largest number of structures or sequences to use.")] = None
    mask_every: Annotated[
        int | None, Option("Distance between residues that are hidden together; 0 hides one residue at a time.")
    ] = MASK_EVERY
    num_recycles: NumRecycles = None


@dataclass(frozen=True)
class EvaluateOptions(Precision, Calibration, Targets, Running):
    """Options of `evaluate`."""

    models: Annotated[
        Sequence[str],
        Option(
            "Model: `demo`, a released name, a folder, a `.pt` file, or a name on the hub. Structures need folding"
            " models.",
            ("-m", "--model"),
        ),
    ] = ("demo",)
    recipes: Annotated[
        Sequence[Union[str, Path, "protquant.quant.Recipe"]] | None,
        Option(
            "Recipe: a name of `protquant recipes`, or a YAML file. Without this option (None in Python), all shipped"
            " recipes are used.",
            ("-q", "--quant"),
        ),
    ] = ("fp32", "w8a8-uniform", "w8a8-pwlq")
    task: Annotated[
        TaskName,
        Option("What is scored: `structure` (folds), `contacts` (predicted contacts) or `language` (hidden residues)."),
    ] = "structure"
    _: KW_ONLY
    chunk_size: Annotated[
        int | None, Option("Rows of the pair that float blocks work on at a time.", python_only=True)
    ] = None
    cache: Annotated[
        Path | None, Option("Folder of finished rows and the float model's answers, to go on from.", python_only=True)
    ] = None


@dataclass(frozen=True)
class MethodsOptions(Device, Calibration, Targets):
    """Options of `compare_methods`."""

    lm: Annotated[str | None, Option("Language model, as `load` takes it; `none` leaves it out.")] = "esm2_t6_8M"
    model: Annotated[str | None, Option("Folding model, as `load` takes it; `none` leaves it out.", ("-m",))] = "demo"
    _: KW_ONLY
    methods: Annotated[
        Collection[str] | None, Option("Only these methods of the grid.", none="all", listed="names, by commas")
    ] = None
    settings: Annotated[
        Collection[str] | None,
        Option("Only these settings of the grid, such as W8A8,W4A4.", none="all", listed="names, by commas"),
    ] = None
    grid: Annotated[Path | None, Option("YAML file of methods and settings.", none="the shipped one")] = None
    seed: Seed = 0
    output: Annotated[
        Path | None,
        Option(
            "Table, .csv, to which each cell is written as soon as it is done. Cells that are in it are not measured"
            " again.",
            ("-o",),
        ),
    ] = None
    recipes: Annotated[
        Path | None, Option("Folder to which the recipe of every cell is written, for `--quant`.", ("--write-recipes",))
    ] = None
    measure: Annotated[bool, Option("Measure cells that are not in the table yet.")] = True


@dataclass(frozen=True)
class RangesOptions(Device):
    """Options of `range_by_length`."""

    model: Annotated[
        Union[str, "protquant.models.ProteinModel"],
        Option("Model, as `load` takes it; in Python also one that is loaded.", ("-m",), taken_as=str),
    ] = "demo"
    calibration: Annotated[
        Path | None, Option("FASTA file of sequences to measure ranges on.", none="12 shipped UniProt proteins")
    ] = None
    _: KW_ONLY
    lengths: Annotated[
        Sequence[int],
        Option(
            "Crop every sequence to these lengths, such as 64,128,256: the same proteins at each.",
            listed="numbers of residues with commas between them, such as 64,128,256",
        ),
    ] = ()
    bins: Annotated[
        Sequence[LengthBin], Option("Ranges of length to compare.", metavar="LOW-HIGH,...", read=parse_lengths)
    ] = DEFAULT_BINS
    progress: Annotated[bool, Option("Show a bar of progress.", python_only=True)] = False


@dataclass(frozen=True)
class FormatsOptions:
    """Options of `list_formats`."""

    measure: Annotated[
        bool,
        Option(
            "Measure all formats now, those of plug-ins included, instead of printing the figures that come with the"
            " package.",
            ("--measure",),
        ),
    ] = False
