"""Memory limits of Linux control groups, such as those of containers or `systemd-run`."""

import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["free_in_groups", "read_number"]

_OWN, _MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def free_in_groups(own: Path = _OWN, mounted: Path = _MOUNTED) -> int | None:
    """Return how many bytes this process may still allocate by the limits of its groups; None without limits.

    Cached file pages do not count as used, because the kernel drops them when memory is short; tmpfs files count.

    Parameters
    ----------
    own, mounted : Path
        File in which the kernel lists the groups of this process, and file in which it lists mounts.
    """
    free = []
    for folder, limit_file, lines in _groups(own, mounted):
        limit = read_number(folder / limit_file, r"^(\d+)$")
        taken = [read_number(folder / "memory.stat", rf"^{line} (\d+)$") for line in lines]
        if limit is not None and taken[0] is not None:
            free.append(max(0, limit - sum(amount or 0 for amount in taken)))
    return min(free, default=None)


def _groups(own: Path, mounted: Path) -> Iterator[tuple[Path, str, tuple[str, ...]]]:
    """Yield the folders of groups, the file with the limit, and the lines that count memory which cannot be dropped."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    fields: tuple[str, ...]
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root, limit, fields = mounted, "memory.max", ("anon", "shmem", "slab_unreclaimable")
        elif "memory" in controllers.split(","):
            root, limit, fields = mounted / "memory", "memory.limit_in_bytes", ("total_rss", "total_shmem")
        else:
            continue
        # Inside a container, the path may not exist; the container's own group is then mounted as the root.
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield folder, limit, fields


def read_number(path: Path, pattern: str) -> int | None:
    """Return the number in the first group of a pattern's match in a file; None without a match."""
    try:
        found = re.search(pattern, path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
