"""Put the shards of a large run together: one manifest and one table, as if it had been one run."""

import csv
from pathlib import Path
from typing import Any

from protquant.errors import ProtquantError
from protquant.pipelines.fold_run import failures_file, predictions_file
from protquant.proteins import Manifest, Shard, only_writer, read_fasta, write_table

__all__ = ["merge_shards"]


def merge_shards(output: Path, fasta: Path | None = None) -> dict[str, Any]:
    """Merge the manifests and tables that `fold_fasta(..., shard=...)` has written to a folder.

    Parameters
    ----------
    output : Path
        The folder. No shard may be running.
    fasta : Path, optional
        The file that was folded: rows of the table are in its order. By default they are in the order of names.

    Returns
    -------
    dict
        `output shards done failed`.

    Raises
    ------
    ProtquantError
        If the folder has no shards, or shards of different numbers, or some are missing; nothing is changed then.
    """
    if not output.is_dir():
        raise ProtquantError(f"{output}: no such folder; give the output folder of `protquant fold --shard`")
    order = [] if fasta is None else [record.name for record in read_fasta(fasta, nucleotides=True).records]
    with only_writer(output):
        shards = _shards(output)
        merged = Manifest.load(output)
        with merged.together():
            for shard in shards:
                for entry in Manifest.load(output, shard.label).own_entries.values():
                    merged.take(entry)
        place = {name: index for index, name in enumerate(order)}
        rows = sorted(merged.rows(), key=lambda row: (place.get(row["name"], len(place)), row["name"]))
        if rows:
            write_table(rows, predictions_file(output))
        failures = _failures(output, shards)
        if failures:
            write_table(failures, failures_file(output))
        else:
            failures_file(output).unlink(missing_ok=True)
        for shard in shards:
            for path in (Manifest(output, part=shard.label).path, predictions_file(output, shard.label)):
                path.unlink(missing_ok=True)
            failures_file(output, shard.label).unlink(missing_ok=True)
    return {"output": str(output), "shards": len(shards), "done": len(rows), "failed": len(failures)}


def _shards(output: Path) -> list[Shard]:
    found = [
        Shard.of_label(path.name.removeprefix("manifest.").removesuffix(".jsonl"))
        for path in output.glob("manifest.*.jsonl")
    ]
    shards = sorted((shard for shard in found if shard), key=lambda shard: shard.index)
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
    return shards


def _failures(output: Path, shards: list[Shard]) -> list[dict[str, Any]]:
    """Rows of all tables of failures, each once: records that cannot be read are failures of every shard."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for shard in shards:
        path = failures_file(output, shard.label)
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as stream:
                for row in csv.DictReader(stream):
                    rows.setdefault(tuple(row.values()), dict(row))
    return sorted(rows.values(), key=lambda row: int(row["line"]))
