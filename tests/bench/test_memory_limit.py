"""Which limit of memory is found, by what the kernel tells; the files of its control groups are stood in for."""

import os
import sys
from pathlib import Path

import pytest

from protquant.bench import memory_limit as module
from protquant.bench.memory_limit import SystemdScope, Usage, memory_limit

MIB = 2**20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")


@pytest.fixture(autouse=True)
def _no_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_SYSTEMD", tmp_path / "nowhere")


def kernel(tmp_path: Path, kind: str, own: str, mount: Path) -> dict[str, Path]:
    """What the kernel would tell in /proc."""
    options = "rw,memory" if kind == "cgroup" else "rw"
    (tmp_path / "mounts").write_text(f"proc /proc proc rw 0 0\n{kind} {mount} {kind} {options} 0 0\n")
    (tmp_path / "own").write_text(f"4:memory:{own}\n3:cpuset:/\n" if kind == "cgroup" else f"0::{own}\n")
    return {"mounts": tmp_path / "mounts", "own": tmp_path / "own"}


def test_a_group_of_version_1_is_made_inside_that_of_this_process(tmp_path: Path):
    mount = tmp_path / "memory"
    (mount / "jobs" / "7").mkdir(parents=True)
    limit = memory_limit(100 * MIB, **kernel(tmp_path, "cgroup", "/jobs/7", mount))
    assert (limit.how, limit.enforced) == ("cgroup v1", True)
    assert limit.folder.parent == mount / "jobs" / "7"
    assert (limit.folder / "memory.limit_in_bytes").read_text() == str(100 * MIB)


def test_a_path_that_a_container_does_not_have_is_passed_over(tmp_path: Path):
    mount = tmp_path / "memory"
    mount.mkdir()
    limit = memory_limit(100 * MIB, **kernel(tmp_path, "cgroup", "/of/the/host", mount))
    assert limit.folder.parent == mount


def test_a_group_of_version_2_is_made_where_children_are_controlled(tmp_path: Path):
    mount = tmp_path / "unified"
    (mount / "user.slice" / "session").mkdir(parents=True)
    (mount / "user.slice" / "session" / "cgroup.subtree_control").write_text("\n")
    (mount / "user.slice" / "cgroup.subtree_control").write_text("cpu memory pids\n")
    limit = memory_limit(100 * MIB, **kernel(tmp_path, "cgroup2", "/user.slice/session", mount))
    assert (limit.how, limit.folder.parent) == ("cgroup v2", mount / "user.slice")
    assert (limit.folder / "memory.max").read_text() == str(100 * MIB)
    (limit.folder / "memory.stat").write_text(f"anon {30 * MIB}\nfile 5\nanon_thp 7\n")
    (limit.folder / "memory.peak").write_text(f"{60 * MIB}\n")
    (limit.folder / "memory.events").write_text("low 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n")
    assert limit.usage(1) == Usage(30 * MIB, 60 * MIB, 1)


def test_without_a_limit_nothing_is_limited_but_all_is_counted(tmp_path: Path):
    mount = tmp_path / "memory"
    mount.mkdir()
    limit = memory_limit(None, **kernel(tmp_path, "cgroup", "/", mount))
    assert (limit.how, limit.enforced) == ("no limit was asked for; counted by cgroup v1", False)
    assert list(limit.folder.iterdir()) == []
    limit.close()
    assert not limit.folder.exists()


def test_who_may_not_make_groups_is_told_why_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mount = tmp_path / "memory"
    mount.mkdir()

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    limit = memory_limit(100 * MIB, **kernel(tmp_path, "cgroup", "/", mount))
    assert not limit.enforced
    assert limit.how == (
        f"no limit: control groups cannot be made here ({mount}: Permission denied; systemd does not run here). Run it"
        " as root, or where systemd limits the memory of a user's programs"
    )
    assert limit.command(["true"]) == ["true"]
    assert limit.usage(1) == Usage()


def test_a_system_without_control_groups_is_told(tmp_path: Path):
    limit = memory_limit(100 * MIB, mounts=tmp_path / "none", own=tmp_path / "none")
    assert limit.how.startswith("no limit: control groups cannot be made here (systemd does not run here)")
    assert memory_limit(None, mounts=tmp_path / "none", own=tmp_path / "none").how == "no limit was asked for"


SYSTEMD_RUN = '#!/bin/sh\n{before}\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n'


def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str = "") -> dict[str, Path]:
    """A machine of systemd, where the user may not make groups."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "systemd-run"
    program.write_text(SYSTEMD_RUN.format(before=before))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setattr(module, "_SYSTEMD", tmp_path)
    return kernel(tmp_path, "cgroup2", "/user.slice/session", tmp_path / "unified")


def test_systemd_is_asked_where_groups_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told = systemd(tmp_path, monkeypatch)
    monkeypatch.setattr(module.os, "geteuid", lambda: 1000)
    limit = memory_limit(100 * MIB, **told)
    assert isinstance(limit, SystemdScope)
    assert (limit.how, limit.enforced) == ("systemd-run --user --scope", True)
    assert limit.command(["fold", "-i"])[-3:] == ["--", "fold", "-i"]
    assert f"MemoryMax={100 * MIB}" in limit.command(["fold"])
    assert limit.usage(os.getpid()) == Usage()  # this process is in no scope under that mount
    assert memory_limit(None, **told).how == "no limit was asked for"


def test_what_systemd_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told = systemd(tmp_path, monkeypatch, before='echo "Failed to connect to bus" >&2; exit 1')
    limit = memory_limit(100 * MIB, **told)
    assert not limit.enforced
    assert "--scope: Failed to connect to bus" in limit.how
