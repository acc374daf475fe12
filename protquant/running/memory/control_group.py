"""What control groups of Linux, such as a container's or `systemd-run`'s, leave of the memory of a machine."""

import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["free_in_groups", "read_number"]

_OWN, _MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def free_in_groups(own: Path = _OWN, mounted: Path = _MOUNTED) -> int | None:
    """Return how many bytes this process may still allocate by the limits of its groups; None where there are none.

    Pages of files do not count, as the kernel drops them when memory runs short; those of files in memory do.

    Parameters
    ----------
    own, mounted : Path
        Where the kernel tells which groups this process is in, and where groups are mounted.
    """
    free = []
    for folder, limit_file, lines in _groups(own, mounted):
        limit = read_number(folder / limit_file, r"^(\d+)$")
        taken = [read_number(folder / "memory.stat", rf"^{line} (\d+)$") for line in lines]
        if limit is not None and taken[0] is not None:
            free.append(max(0, limit - sum(each or 0 for each in taken)))
    return min(free, default=None)


def _groups(own: Path, mounted: Path) -> Iterator[tuple[Path, str, tuple[str, ...]]]:
    """Folders of groups, the names of the file of their limit, and of lines on what is not dropped."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    kept: tuple[str, ...]
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root, limit, kept = mounted, "memory.max", ("anon", "shmem", "slab_unreclaimable")
        elif "memory" in controllers.split(","):
            root, limit, kept = mounted / "memory", "memory.limit_in_bytes", ("total_rss", "total_shmem")
        else:
            continue
        # A container may be told a path that is not there; what limits it is mounted as the root.
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield folder, limit, kept


def read_number(path: Path, pattern: str) -> int | None:
    """Return the number that a pattern's first group finds in a file; None where there is none."""
    try:
        found = re.search(pattern, path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
