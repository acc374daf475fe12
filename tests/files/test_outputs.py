"""Files that appear whole or not at all."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from protquant.errors import ProtquantError
from protquant.files import atomic_write, only_writer, prepare_folder


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_text_and_bytes_arrive_as_they_are(tmp_path: Path) -> None:
    assert atomic_write(tmp_path / "a", "one\n\N{GREEK SMALL LETTER ALPHA}\n").read_bytes() == b"one\n\xce\xb1\n"
    assert atomic_write(tmp_path / "a", b"\x00\r\n").read_bytes() == b"\x00\r\n"
    assert names(tmp_path) == ["a"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    written = atomic_write(tmp_path / "a", "x")
    assert written.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    path = atomic_write(tmp_path / "a", "before")

    def fail(_: int) -> None:
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((ProtquantError, KeyboardInterrupt)) as caught:
        atomic_write(path, "after")
    if isinstance(failure, OSError):
        assert str(caught.value).startswith(f"{path}: the file cannot be written (No space left on device)")
    assert path.read_text() == "before"
    assert names(tmp_path) == ["a"]


def test_a_folder_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ProtquantError, match="no folder has this name"):
        atomic_write(tmp_path / "a", "x")
    with pytest.raises(ProtquantError, match="Check that its folder exists"):
        atomic_write(tmp_path / "none" / "a", "x")
    assert names(tmp_path) == ["a"]


def test_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    assert prepare_folder(tmp_path / "a" / "b").is_dir()
    assert prepare_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert names(tmp_path / "a" / "b") == []


@pytest.mark.parametrize("below", ["file", "file/sub"])
def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProtquantError, match="the output folder cannot be created") as caught:
        prepare_folder(tmp_path / below)
    assert str(tmp_path / below) in str(caught.value)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(ProtquantError, match=r"the output folder cannot be written \(Permission denied\)"):
        prepare_folder(tmp_path)


def test_one_process_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from protquant.files import only_writer\n"
        "with only_writer(Path(sys.argv[1])):\n    print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(ProtquantError, match="another protquant is writing to this folder"), only_writer(tmp_path):
            pass
        other.communicate("")
    with only_writer(tmp_path):
        pass
    assert names(tmp_path) == []


def test_what_a_process_that_was_killed_left_unfinished_is_removed(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from protquant.files import atomic_write, only_writer\n"
        "os.fsync = lambda _: os._exit(9)\n"
        "with only_writer(Path(sys.argv[1])):\n    atomic_write(Path(sys.argv[1]) / 'a', 'half')"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 9
    assert any(name.endswith(".tmp") for name in names(tmp_path))
    with only_writer(tmp_path):
        atomic_write(tmp_path / "b", "whole")
    assert names(tmp_path) == ["b"]
