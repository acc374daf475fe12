"""The folder for results that can be recomputed: statistics of calibration, tile sizes of kernels.

It is `$PROTQUANT_CACHE`, or by default the cache folder of the system: on Linux `$XDG_CACHE_HOME/protquant` or
`~/.cache/protquant`. `PROTQUANT_CACHE=off` switches it off.
"""

import os
from pathlib import Path

from platformdirs import user_cache_path

__all__ = ["cache_folder"]

_VARIABLE = "PROTQUANT_CACHE"
_OFF = ("off", "0", "no", "false")


def cache_folder() -> Path | None:
    """Return the cache folder, which may not exist yet; None if `PROTQUANT_CACHE=off`."""
    chosen = os.environ.get(_VARIABLE)
    if chosen is not None and chosen.strip().lower() in _OFF:
        return None
    if chosen:
        return Path(chosen).expanduser()
    return user_cache_path("protquant", appauthor=False)
