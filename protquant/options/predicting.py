"""Options of the functions that predict: folding, contacts, plans."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

from protquant.options.choices import DEMO_CHAINS, BFactor, LayoutName
from protquant.options.groups import (
    FoldingMemory,
    Model,
    OutputFolder,
    Precision,
    Prediction,
    Quant,
    Running,
)
from protquant.options.option import Argument, Option
from protquant.proteins import Fasta

__all__ = ["ContactsOptions", "DemoOptions", "FoldOptions", "MergeOptions", "PlanOptions"]


@dataclass(frozen=True)
class FoldOptions(Prediction, FoldingMemory):
    """Options of `fold_fasta`."""

    fasta: Annotated[
        Path | Fasta,
        Option("FASTA file (plain or .gz), or CSV file with the columns id and sequence; `:` between chains.", ("-i",)),
    ]
    output: OutputFolder
    model: Model = "esmfold_v1"
    quant: Quant = "fp32"
    _: KW_ONLY
    recycle_tolerance: Annotated[
        float,
        Option(
            "Stop recycling when distances between C-alpha atoms have changed by less since the last pass, in angstrom"
            " (root mean square); proteins are then folded one by one. 0 never stops early."
        ),
    ] = 0.0
    shard: Annotated[
        str | None,
        Option(
            "Part of the records to fold, such as `3/16`: every sixteenth batch, from the third on. Shards may run at"
            " once on one folder; `merge` puts them together.",
            metavar="I/N",
            none="all records",
        ),
    ] = None
    workers: Annotated[
        int,
        Option(
            "Number of processes that fold at once and share the weights and the threads (CPU, Linux); the last bits of"
            " results may depend on it."
        ),
    ] = 1
    layout: Annotated[
        LayoutName,
        Option(
            "Convention for names and files of targets: `protquant`, `colabfold` or `nf-core`. Targets that are done in"
            " another layout are folded again."
        ),
    ] = "protquant"
    skip_output: Annotated[
        Sequence[str],
        Option(
            "Kinds of files not to write: `cif`, `pdb`, `pae`, `plots`; in the layouts colabfold and nf-core also"
            " `scores`, in colabfold also `done`.",
            listed="kinds of files with commas between them, such as cif,plots",
        ),
    ] = ()
    on_batch: Annotated[
        Callable[[Sequence[Any]], None] | None,
        Option("Called with the results of the records of each batch, once they are recorded.", python_only=True),
    ] = None
    b_factor: Annotated[
        BFactor, Option("B-factors of structure files: `plddt`, or `error`, the expected error of each atom.")
    ] = "plddt"
    pae_in_cif: Annotated[
        int,
        Option(
            "Largest number of residues of a target whose predicted aligned error goes into its mmCIF file, too: 5.7 MB"
            " for 400 residues; 0 for none."
        ),
    ] = 400


@dataclass(frozen=True)
class MergeOptions:
    """Options of `merge_shards`."""

    output: Annotated[Path, Argument("Output folder of `fold --shard`; no shard may be running.")]
    fasta: Annotated[
        Path | None, Option("Folded file; the table has its order.", ("-i",), none="the order of names")
    ] = None
    _: KW_ONLY
    even_so: Annotated[
        bool, Option("Merge shards that were interrupted, too; otherwise they are refused.", ("--even-so",))
    ] = False


@dataclass(frozen=True)
class ContactsOptions(Prediction):
    """Options of `contacts_fasta`."""

    fasta: Annotated[Path, Option("FASTA file (plain or .gz) or CSV file of single chains.", ("-i",))]
    output: OutputFolder
    model: Model = "esm2_t33_650M"
    quant: Quant = "fp32"
    _: KW_ONLY
    top: Annotated[float, Option("Number of pairs in the table, as a multiple of the length of the sequence.")] = 1.0


@dataclass(frozen=True)
class PlanOptions(Precision, FoldingMemory, Running):
    """Options of `plan_folding`."""

    fasta: Annotated[
        Path | None, Option("FASTA file (plain or .gz) or CSV file.", ("-i",), none="only the machine is described")
    ] = None
    model: Model = "esmfold_v1"
    quant: Quant = "fp32"
    _: KW_ONLY
    compare: Annotated[
        Sequence[str] | None,
        Option(
            "Further recipe whose longest protein is shown; `none` for no recipe. Without this option (None in Python),"
            " they are `fp32`, `w8a8-int8` and `w4a8-int4`, or no recipe for a quantized model."
        ),
    ] = ()
    measure: Annotated[bool, Option("Estimate times by a short measurement.")] = True


@dataclass(frozen=True)
class DemoOptions:
    """Options of `demonstrate`."""

    output: OutputFolder = Path("protquant-demo")
    limit: Annotated[int, Option("Number of the 50 shipped chains to compare on.", at_least=1)] = DEMO_CHAINS
