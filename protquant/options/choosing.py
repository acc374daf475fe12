"""Options of the functions that choose formats: `sensitivity` and `auto`."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Union

from protquant.options.choices import DRIFT_POWERS
from protquant.options.groups import Calibration, NumRecycles, Precision
from protquant.options.option import Option

if TYPE_CHECKING:
    import protquant.models
    import protquant.quant

__all__ = ["AutoOptions", "Drift", "Granularity", "Grouping", "SensitivityOptions"]

Grouping = Literal["site", "module", "kind", "block"]
Granularity = Literal["channel", "group", "both"]
Drift = Annotated[str | None, Option(f"Drift that counts: {', '.join(DRIFT_POWERS)}.", ("--drift",))]
_AnyModel = Annotated[
    Union[str, Path, "protquant.models.ProteinModel"],
    Option("Model, as `load` takes it; in Python also one that is loaded.", ("-m",), taken_as=str),
]
_AnyRecipe = Union[str, Path, "protquant.quant.Recipe"]
_WIDTHS = "numbers with commas between them, such as 2,3,4"


@dataclass(frozen=True, kw_only=True)
class _Parts(Precision, Calibration):
    """Options for the parts of a model whose formats are tried."""

    by: Annotated[Grouping, Option("What a part is: a site, a module, a kind of site in a block, or a block.")] = "site"
    group_size: Annotated[int, Option("Number of weights of a row that share a scale, where scales are per group.")] = (
        64
    )
    sequences: Annotated[
        Path | Sequence[str] | None,
        Option(
            "FASTA file on whose sequences drift is measured; in Python also a list of sequences.",
            none="the shipped proteins that calibrate; for folding models the first 3 shipped chains",
            taken_as=Path,
        ),
    ] = None
    limit: Annotated[int | None, Option("Largest number of sequences to use.")] = None
    num_recycles: NumRecycles = None


@dataclass(frozen=True)
class SensitivityOptions(_Parts):
    """Options of `sensitivity`."""

    model: _AnyModel = "demo"
    _: KW_ONLY
    base: Annotated[
        _AnyRecipe,
        Option("Recipe that says which sites are tried, and with which formats of activations.", taken_as=str),
    ] = "w8a8-uniform"
    weight_bits: Annotated[Sequence[int], Option("Widths of weights; empty for none.", listed=_WIDTHS)] = (8, 4, 3, 2)
    activation_bits: Annotated[Sequence[int], Option("Widths of activations; empty for none.", listed=_WIDTHS)] = (
        8,
        6,
        4,
    )
    granularity: Annotated[Granularity, Option("Scales of weights: per channel, per group, or both.")] = "channel"
    output: Annotated[
        Path | None,
        Option("Table, .csv or .parquet, written part by part. Parts in it are not measured again.", ("-o",)),
    ] = None


@dataclass(frozen=True)
class AutoOptions(_Parts):
    """Options of `auto`."""

    model: _AnyModel = "demo"
    target_bits: Annotated[float | None, Option("Mean effective bits of the weights, scales and gains included.")] = (
        None
    )
    max_drift: Annotated[
        float | None, Option("Largest drift on the sequences of `check`; the fewest bits within it are chosen.")
    ] = None
    _: KW_ONLY
    base: Annotated[
        _AnyRecipe,
        Option("Recipe to start from: its weights get other formats, and the rest of it stays.", taken_as=str),
    ] = "w8"
    drift: Drift = None
    weight_bits: Annotated[Sequence[int], Option("Widths of weights to choose from.", listed=_WIDTHS)] = (
        *(2, 3, 4, 5, 6, 8),
    )
    activation_bits: Annotated[
        Sequence[int], Option("Widths of activations to choose from; empty: they stay as in the base.", listed=_WIDTHS)
    ] = ()
    target_activation_bits: Annotated[float | None, Option("Mean bits of the activations.")] = None
    granularity: Annotated[Granularity, Option("Scales of weights: per channel, per group, or both.")] = "both"
    frontier: Annotated[
        Sequence[float], Option("Other mean bits to choose and measure at, for the table.", listed=_WIDTHS)
    ] = (3, 4, 5, 6)
    compare: Annotated[Sequence[_AnyRecipe], Option("Recipe to measure too, for comparison.")] = ()
    check: Annotated[
        Path | Sequence[str] | None,
        Option(
            "FASTA file on whose sequences recipes are measured; in Python also a list of sequences. Sequences that"
            " the choice was made on are left out.",
            none="shipped chains",
            taken_as=Path,
        ),
    ] = None
    check_limit: Annotated[int, Option("Largest number of sequences of `check` to use.")] = 8
    choose_recycles: Annotated[int, Option("Number of recycles while parts are measured one by one.")] = 0
    table: Annotated[
        Path | None, Option("Table of sensitivities, .csv or .parquet. Parts in it are not measured again.")
    ] = None
    output: Annotated[Path | None, Option("YAML file for the recipe.", ("-o",))] = None
