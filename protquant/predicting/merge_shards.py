"""Merge the shards of a large run into one manifest and one table, as of a single run."""

import csv
from pathlib import Path
from typing import Any

from protquant.errors import ProtquantError
from protquant.files import Manifest, only_writer, write_table
from protquant.options import MergeOptions, takes
from protquant.predicting import Shard
from protquant.predicting.fold_run import failures_file, predictions_file
from protquant.proteins import read_fasta

__all__ = ["check_shards", "merge_shards"]


@takes(MergeOptions)
def merge_shards(options: MergeOptions) -> dict[str, Any]:
    """Merge the manifests and tables of `fold_fasta(..., shard=...)` in a folder.

    Returns
    -------
    dict
        `output shards unfinished done failed`; `unfinished` is the number of interrupted shards.

    Raises
    ------
    ProtquantError
        If the folder has no shards, or shards of different runs, or some are missing or unfinished. Then nothing is
        changed.
    """
    if not options.output.is_dir():
        raise ProtquantError(f"{options.output}: no such folder; give the output folder of `protquant fold --shard`")
    records = [] if options.fasta is None else read_fasta(options.fasta, nucleotides=True).records
    with only_writer(options.output):
        shards = _shards(options.output)
        manifests = [Manifest.load(options.output, shard.label) for shard in shards]
        unfinished = [shard for shard, each in zip(shards, manifests, strict=True) if not each.ended]
        if unfinished and not options.even_so:
            labels = ", ".join(f"{shard.index}/{shard.count}" for shard in unfinished[:5])
            raise ProtquantError(
                f"{options.output}: {len(unfinished)} of {len(shards)} shards did not come to their end: {labels}"
                f"{', ...' if len(unfinished) > 5 else ''}; run them again by `protquant fold --shard"
                f" {unfinished[0].index}/{unfinished[0].count}`, or merge what is done with --even-so"
            )
        merged = Manifest.load(options.output)
        with merged.together():
            for each in manifests:
                for entry in each.own_entries.values():
                    merged.take(entry)
        place = {record.name: index for index, record in enumerate(records)}
        rows = sorted(merged.rows(), key=lambda row: (place.get(row["name"], len(place)), row["name"]))
        if rows:
            write_table(rows, predictions_file(options.output))
        done = {row["name"] for row in rows}
        failures = [row for row in _failures(options.output, shards) if row["name"] not in done]
        # Interrupted shards have written no table of failures.
        listed, lines = {row["name"] for row in failures}, {record.name: record.line for record in records}
        failures += [
            {"name": each.name, "header": each.header, "line": lines.get(each.name, ""), "error": each.error}
            for each in merged.failures()
            if each.name not in listed
        ]
        if failures:
            write_table(failures, failures_file(options.output))
        else:
            failures_file(options.output).unlink(missing_ok=True)
        # Manifests last, because they identify the shards.
        for name in (predictions_file, failures_file, lambda folder, label: Manifest(folder, part=label).path):
            for shard in shards:
                name(options.output, shard.label).unlink(missing_ok=True)
    counts = {"shards": len(shards), "unfinished": len(unfinished), "done": len(rows), "failed": len(failures)}
    return {"output": str(options.output), **counts}


def check_shards(output: Path, shard: Shard | None, partition: str) -> None:
    """Raise an error if a run does not fit the shards that a folder already has.

    Parameters
    ----------
    shard : Shard or None
        Shard to fold; None for a whole run.
    partition : str
        Fingerprint of all batches of the run.

    Raises
    ------
    ProtquantError
        If there are shards and the run is whole, or if the shards have another number, other records or other batches.
    """
    found = _labels(output)
    if not found:
        return
    if shard is None:
        raise ProtquantError(f"{output}: there are shards; put them together first: `protquant merge {output}`")
    for other in found:
        if other.count != shard.count or Manifest.partition_of(output, other.label) != partition:
            raise ProtquantError(
                f"{output}: shard {other.index}/{other.count} is of other records, batches or number than"
                f" {shard.index}/{shard.count}. Fold all shards of one file and --max-tokens-per-batch, or merge what"
                " is there, or name another folder."
            )


def _labels(output: Path) -> list[Shard]:
    names = [path.name.removeprefix("manifest.").removesuffix(".jsonl") for path in output.glob("manifest.*.jsonl")]
    return sorted((each for name in names if (each := Shard.of_label(name))), key=lambda shard: shard.index)


def _shards(output: Path) -> list[Shard]:
    shards = _labels(output)
    if not shards:
        raise ProtquantError(f"{output}: there are no shards to merge; they are made by `protquant fold --shard 1/4`")
    counts = sorted({shard.count for shard in shards})
    if len(counts) > 1:
        raise ProtquantError(
            f"{output}: there are shards of {' and of '.join(map(str, counts))}; delete the manifests of those that are"
            " not wanted"
        )
    there = {shard.index for shard in shards}
    if missing := [str(index) for index in range(1, counts[0] + 1) if index not in there]:
        raise ProtquantError(
            f"{output}: of {counts[0]} shards these have not begun: {', '.join(missing[:10])}"
            f"{', ...' if len(missing) > 10 else ''}; run them by `protquant fold --shard {missing[0]}/{counts[0]}`"
        )
    if len({Manifest.partition_of(output, shard.label) for shard in shards}) > 1:
        raise ProtquantError(f"{output}: the shards are of different files, or batches: what is in none is not known")
    return shards


def _failures(output: Path, shards: list[Shard]) -> list[dict[str, Any]]:
    """Return the rows of all tables of failures without duplicates: unreadable records are failures of every shard."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for shard in shards:
        path = failures_file(output, shard.label)
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as stream:
                for row in csv.DictReader(stream):
                    rows.setdefault(tuple(row.values()), dict(row))
    return sorted(rows.values(), key=lambda row: int(row["line"]))
