"""Plug-ins: installed packages that register formats and steps by entry points of the group `protquant.plugins`."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from protquant.errors import ProtquantError

__all__ = ["load_plugins"]

_GROUP = "protquant.plugins"
_imported: set[EntryPoint] = set()


def load_plugins() -> None:
    """Import the modules of all plug-ins that are installed, once.

    Raises
    ------
    ProtquantError
        If a plug-in cannot be imported; the message names the plug-in and its package.
    """
    for point in _points():
        if point in _imported:
            continue
        _imported.add(point)  # added before the import, because a plug-in may read recipes
        try:
            point.load()
        except Exception as error:
            _imported.remove(point)
            package = point.dist.name if point.dist else "an unknown package"
            raise ProtquantError(
                f"plug-in {point.name!r} of {package} ({point.value}): {type(error).__name__}: {error};"
                " mend the package, or uninstall it"
            ) from error


@cache
def _points() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=_GROUP))
