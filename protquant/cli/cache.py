"""The command on what is kept between runs: `cache`."""

from typing import Annotated, Any

import typer

from protquant import preparing
from protquant.cli.app import Json
from protquant.cli.commands import command
from protquant.cli.tables import print_json
from protquant.files.cache_folder import cache_folder
from protquant.options import Option


@command("cache")
def cache(clear: Annotated[bool, Option("Delete what is kept.")] = False, as_json: Json = False) -> None:
    """Show, or delete, what is kept between runs: statistics of calibration, and quantized models that were prepared.

    It lies in `$PROTQUANT_CACHE`, or `~/.cache/protquant`; `PROTQUANT_CACHE=off` keeps nothing on disk. Where
    statistics pass 4 GiB, those that were used longest ago are deleted; models stay until `--clear`.

    Example: `protquant cache --clear`
    """
    folder = cache_folder()
    document: dict[str, Any]
    if folder is None:
        document = {"folder": None, "entries": 0, "bytes": 0, "limit": 0, "models": [], "freed": 0}
    else:
        kept = preparing.DiskCache(folder)
        freed = kept.clear() + preparing.delete_prepared() if clear else 0
        entries = kept.entries()
        total = sum(entry.bytes for entry in entries)
        document = {
            "folder": str(kept.folder),
            "entries": len(entries),
            "bytes": total,
            "limit": kept.limit,
            "models": [{"folder": str(each.folder), "bytes": each.bytes} for each in preparing.list_prepared()],
            "freed": freed,
        }
    if as_json:
        print_json(document)
    elif folder is None:
        typer.echo("PROTQUANT_CACHE is off: nothing is kept")
    elif clear:
        typer.echo("{folder}: {mb:.1f} MB deleted".format(mb=document["freed"] / 1e6, **document))
    else:
        typer.echo(
            "{folder}: statistics of {entries} calibrations, {mb:.1f} MB of at most {gb:.1f} GB".format(
                mb=document["bytes"] / 1e6, gb=document["limit"] / 1e9, **document
            )
        )
        for model in document["models"]:
            typer.echo(f"{model['folder']}: quantized model, {model['bytes'] / 1e6:.1f} MB")
