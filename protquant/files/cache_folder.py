"""The folder for results that can be made again: statistics of calibration, tiles of kernels.

It is `$PROTQUANT_CACHE`, or else the cache folder of the system: on Linux `$XDG_CACHE_HOME/protquant` or
`~/.cache/protquant`. There is none with `PROTQUANT_CACHE=off`.
"""

import os
from pathlib import Path

from platformdirs import user_cache_path

__all__ = ["cache_folder"]

_VARIABLE = "PROTQUANT_CACHE"
_OFF = ("off", "0", "no", "false")


def cache_folder() -> Path | None:
    """Return the folder, which need not be there yet; None if nothing is to be kept on disk."""
    chosen = os.environ.get(_VARIABLE)
    if chosen is not None and chosen.strip().lower() in _OFF:
        return None
    if chosen:
        return Path(chosen).expanduser()
    return user_cache_path("protquant", appauthor=False)
