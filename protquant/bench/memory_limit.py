"""Memory limits that the Linux kernel enforces for a process: control groups, version 1 and 2, and those of systemd.

A limit counts memory that the process allocates, and pages of files that it is the first to read. When memory is short,
the kernel first drops pages of files, and then kills the process. `ulimit -v` is no substitute: it limits the address
space, which includes mapped files.
"""

import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from protquant.running.memory.control_group import read_number

__all__ = ["ControlGroup", "MemoryLimit", "NoLimit", "SystemdScope", "Usage", "memory_limit"]

_MOUNTS, _OWN = Path("/proc/self/mounts"), Path("/proc/self/cgroup")
_SYSTEMD = Path("/run/systemd/system")  # exists if systemd runs: sd_booted(3)
_ATTEMPTS, _PAUSE = 20, 0.05


@dataclass(frozen=True)
class Usage:
    """The counts of a control group so far; None for values that the kernel does not report.

    Attributes
    ----------
    anonymous : int or None
        Bytes that processes have allocated at present.
    charged_peak : int or None
        Peak of counted bytes, with pages of files.
    kills : int or None
        Number of processes that were killed because they exceeded the limit.
    """

    anonymous: int | None = None
    charged_peak: int | None = None
    kills: int | None = None


class MemoryLimit(Protocol):
    """A limit for one process and the processes that it starts.

    Attributes
    ----------
    how : str
        Means of enforcement, or the reason why there is none.
    enforced : bool
    """

    @property
    def how(self) -> str: ...
    @property
    def enforced(self) -> bool: ...
    def command(self, command: Sequence[str]) -> list[str]:
        """Return a command that runs `command` inside the limit, with the same process ID."""
        ...

    def usage(self, process: int) -> Usage:
        """Return the counts so far; `process` is the ID of the process."""
        ...

    def close(self) -> None:
        """Remove the control group, after the end of all processes."""
        ...


@dataclass(frozen=True)
class NoLimit:
    """No limit is enforced.

    Attributes
    ----------
    how : str
        `no limit was asked for`, or the reason why no limit can be enforced.
    """

    how: str
    enforced: bool = False

    def command(self, command: Sequence[str]) -> list[str]:
        return list(command)

    def usage(self, process: int) -> Usage:  # noqa: ARG002 (nothing counts)
        return Usage()

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class _Layout:
    """File names of a version of control groups."""

    name: str
    limit: str
    swap: str  # limit of memory and swap (version 1), of swap (version 2)
    peak: str
    anonymous: str  # a line of memory.stat
    kills: str  # has a line oom_kill


_V1 = _Layout(
    "cgroup v1",
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.max_usage_in_bytes",
    "total_rss",
    "memory.oom_control",
)
_V2 = _Layout("cgroup v2", "memory.max", "memory.swap.max", "memory.peak", "anon", "memory.events")


@dataclass
class ControlGroup:
    """A new control group for one process.

    Parameters
    ----------
    folder : Path
        New folder, inside a group whose children can be limited.
    limit : int or None
        Limit in bytes; None only counts.

    Raises
    ------
    OSError
        If the group cannot be created or limited.
    """

    folder: Path
    limit: int | None
    layout: _Layout

    def __post_init__(self) -> None:
        self.folder.mkdir()
        if self.limit is None:
            return
        try:
            (self.folder / self.layout.limit).write_text(str(self.limit))
            # Limit swap too, or memory above the limit would go there. Kernels that do not count swap lack this file.
            if (swap := self.folder / self.layout.swap).exists():
                swap.write_text(str(self.limit) if self.layout is _V1 else "0")
        except OSError:
            self.close()
            raise

    @property
    def enforced(self) -> bool:
        return self.limit is not None

    @property
    def how(self) -> str:
        return self.layout.name if self.enforced else f"no limit was asked for; counted by {self.layout.name}"

    def command(self, command: Sequence[str]) -> list[str]:
        # The shell joins the group and then becomes the command, so that all of its memory is counted here.
        enter = 'echo $$ > "$0" && exec "$@"'
        return ["/bin/sh", "-c", enter, str(self.folder / "cgroup.procs"), *command]

    def usage(self, process: int) -> Usage:  # noqa: ARG002 (the group is known)
        return _usage(self.folder, self.layout)

    def close(self) -> None:
        # Killed processes stay in their group for a moment.
        for _ in range(_ATTEMPTS):
            try:
                self.folder.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(_PAUSE)
            else:
                return


@dataclass(frozen=True)
class SystemdScope:
    """A scope of systemd, used if users may not create control groups themselves.

    Attributes
    ----------
    user : bool
        Whether to use the user's systemd, not the system's.
    root : Path
        Mount point of control groups of version 2.
    """

    limit: int
    user: bool
    root: Path
    enforced: bool = field(default=True, init=False)

    @property
    def how(self) -> str:
        return "systemd-run --user --scope" if self.user else "systemd-run --scope"

    def command(self, command: Sequence[str]) -> list[str]:
        whose = ["--user"] if self.user else []
        limits = ["-p", f"MemoryMax={self.limit}", "-p", "MemorySwapMax=0"]
        return ["systemd-run", *whose, "--scope", "--quiet", *limits, "--", *command]

    def usage(self, process: int) -> Usage:
        # The scope and its counts disappear when its last process ends.
        try:
            own = Path(f"/proc/{process}/cgroup").read_text()
        except OSError:
            return Usage()
        found = re.search(r"^0::/(.+\.scope)$", own, re.MULTILINE)
        return _usage(self.root / found[1], _V2) if found else Usage()

    def close(self) -> None:
        pass


def memory_limit(limit: int | None, mounts: Path = _MOUNTS, own: Path = _OWN) -> MemoryLimit:
    """Return a limit that this machine can enforce; if there is none, a `NoLimit` with the reason.

    Parameters
    ----------
    limit : int or None
        Limit in bytes; with None, control groups only count.
    mounts, own : Path
        Files in which the kernel lists mounts, and the groups of this process.
    """
    reasons = []
    for folder, layout in _parents(mounts, own):
        try:
            return ControlGroup(folder / f"protquant-{secrets.token_hex(4)}", limit, layout)
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror or type(error).__name__}")
    if limit is None:
        return NoLimit("no limit was asked for")
    try:
        return _systemd_scope(limit, mounts)
    except OSError as error:
        reasons.append(str(error))
    return NoLimit(
        f"no limit: control groups cannot be made here ({'; '.join(reasons)}). Run it as root, or where systemd limits"
        " the memory of a user's programs"
    )


def _parents(mounts: Path, own: Path) -> list[tuple[Path, _Layout]]:
    """Yield groups in which a group can be created, starting with those nearest to this process."""
    try:
        mounted = [line.split() for line in mounts.read_text().splitlines()]
        groups = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for _, where, kind, options, *_ in mounted:
        if kind == "cgroup" and "memory" in options.split(","):
            path = next((each[2] for each in groups if "memory" in each[1].split(",")), "/")
            # In a container, a listed path may not exist.
            found += [(folder, _V1) for folder in _unique(Path(where + path), Path(where)) if folder.is_dir()]
        if kind == "cgroup2":
            path = next((each[2] for each in groups if each[0] == "0"), "/")
            nearest = Path(where + path)
            above = [nearest, *(each for each in nearest.parents if each.is_relative_to(where))]
            found += [(folder, _V2) for folder in above if _controls_memory_of_children(folder)]
    return found


def _unique(*folders: Path) -> list[Path]:
    return list(dict.fromkeys(folders))


def _controls_memory_of_children(folder: Path) -> bool:
    try:
        return "memory" in (folder / "cgroup.subtree_control").read_text().split()
    except OSError:
        return False


def _systemd_scope(limit: int, mounts: Path) -> SystemdScope:
    """Return a scope, after a trial with a program that does nothing."""
    if not _SYSTEMD.is_dir() or shutil.which("systemd-run") is None:
        raise OSError("systemd does not run here")
    where = re.search(r"^\S+ (\S+) cgroup2 ", mounts.read_text(), re.MULTILINE)
    if where is None:
        raise OSError("systemd's control groups are not of version 2")
    scope = SystemdScope(limit, os.geteuid() != 0, Path(where[1]))
    try:
        subprocess.run(scope.command(["true"]), capture_output=True, text=True, check=True, timeout=30)  # noqa: S603
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines() or [f"exit code {error.returncode}"]
        raise OSError(f"{scope.how}: {lines[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{scope.how}: no answer within 30 s") from error
    return scope


def _usage(folder: Path, layout: _Layout) -> Usage:
    return Usage(
        anonymous=read_number(folder / "memory.stat", rf"^{layout.anonymous} (\d+)$"),
        charged_peak=read_number(folder / layout.peak, r"^(\d+)$"),
        kills=read_number(folder / layout.kills, r"^oom_kill (\d+)$"),
    )
