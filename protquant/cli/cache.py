"""The command `cache`, which shows or clears the cache folder."""

from typing import Annotated, Any

import typer

from protquant import preparing
from protquant.cli.app import Json
from protquant.cli.commands import command
from protquant.cli.tables import print_json
from protquant.files.cache_folder import cache_folder
from protquant.options import Option


@command("cache")
def cache(clear: Annotated[bool, Option("Delete all of it.")] = False, as_json: Json = False) -> None:
    """Show or clear the cache folder: statistics of calibration, and prepared quantized models.

    The folder is `$PROTQUANT_CACHE`, or `~/.cache/protquant`; with `PROTQUANT_CACHE=off` nothing is cached on disk.
    When statistics exceed 4 GiB, the least recently used ones are deleted; models stay until `--clear`.

    Example: `protquant cache --clear`
    """
    folder = cache_folder()
    document: dict[str, Any]
    if folder is None:
        document = {"folder": None, "entries": 0, "bytes": 0, "limit": 0, "models": [], "freed": 0}
    else:
        cached = preparing.DiskCache(folder)
        freed = cached.clear() + preparing.delete_prepared() if clear else 0
        entries = cached.entries()
        total = sum(entry.bytes for entry in entries)
        document = {
            "folder": str(cached.folder),
            "entries": len(entries),
            "bytes": total,
            "limit": cached.limit,
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
