"""Where what can be made again is kept between runs: statistics of calibration, tiles of kernels.

`$PROTQUANT_CACHE`, or `$XDG_CACHE_HOME/protquant`, or `~/.cache/protquant`; nothing with `PROTQUANT_CACHE=off`.
"""

import os
from pathlib import Path

__all__ = ["cache_folder"]

_VARIABLE = "PROTQUANT_CACHE"
_OFF = ("off", "0", "no", "false")


def cache_folder() -> Path | None:
    """The folder, which need not be there yet; None if nothing is to be kept on disk."""
    chosen = os.environ.get(_VARIABLE)
    if chosen is not None and chosen.strip().lower() in _OFF:
        return None
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "protquant"
