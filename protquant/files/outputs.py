"""Atomic writes of files: write a temporary file, flush it to disk, then rename it to the target."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from protquant.errors import ProtquantError

__all__ = ["OutputError", "atomic_write", "only_writer", "prepare_folder", "unwritable"]

_LOCK_BEGINS, _LOCK_ENDS = ".protquant-", ".lock"
_SECONDS_FOR_A_LOOK = 2.0
_part = ""  # label of the shard that this process writes; it removes only temporary files with this label


class OutputError(ProtquantError):
    """The disk is full or cannot be written any more, so that later writes would fail too."""


# Error numbers that concern the whole disk, not one file.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def unwritable(message: str, error: OSError) -> ProtquantError:
    """Return the error for a failed write: an `OutputError` if the disk is the cause."""
    return OutputError(message) if error.errno in _OF_THE_DISK else ProtquantError(message)


def prepare_folder(path: str | os.PathLike[str]) -> Path:
    """Make sure that `path` is a folder in which files can be created.

    Parameters
    ----------
    path : str or PathLike
        The folder; missing folders are created, parents included.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ProtquantError
        If something else has that name, or the folder cannot be created or written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProtquantError(
            f"{folder}: the output folder cannot be created ({_reason(error)}). "
            "Name another folder, or free that name and check the permissions of the folders above it."
        ) from error
    # Try to write: permission bits say nothing about root, read-only mounts, full disks and network shares.
    probe = _temporary(folder)
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise ProtquantError(
            f"{folder}: the output folder cannot be written ({_reason(error)}). "
            "Name another folder, or change its permissions."
        ) from error
    return folder


@contextlib.contextmanager
def only_writer(folder: Path, part: str = "") -> Iterator[None]:
    """Keep other processes from writing to a folder, and remove temporary files of killed processes.

    Parameters
    ----------
    folder : Path
        An existing folder.
    part : str
        Label of a shard. Processes of different shards may write at the same time; a run without shards excludes all.

    Raises
    ------
    ProtquantError
        If another process writes to the folder.
    """
    global _part  # noqa: PLW0603 (one run per process)
    with _locked(folder, part):
        locks = folder.glob(f"{_LOCK_BEGINS}*{_LOCK_ENDS}")
        others = [path.name.removeprefix(_LOCK_BEGINS).removesuffix(_LOCK_ENDS) for path in locks]
        for other in others:
            # Shards exclude a run without shards, not each other. A killed process leaves a lock that nobody holds.
            if other != part and not (part and other):
                # Wait a moment: another process may be checking the same lock.
                with _locked(folder, other, _SECONDS_FOR_A_LOOK, keep=bool(part)):
                    pass
        before, _part = _part, part
        temporary = f".protquant-{f'{part}-' if part else ''}*.tmp"
        try:
            _discard_all(folder, temporary)
            yield
        finally:
            _discard_all(folder, temporary)  # left by workers that were killed
            _part = before


@contextlib.contextmanager
def _locked(folder: Path, part: str, seconds: float = 0, *, keep: bool = False) -> Iterator[None]:
    from filelock import FileLock, Timeout  # noqa: PLC0415 (it takes time to import, and reading does not need it)

    path = folder / f"{_LOCK_BEGINS}{part}{_LOCK_ENDS}"
    lock = FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except Timeout as error:
        raise ProtquantError(
            f"{folder}: another protquant is writing to this folder. Wait until it is done, or name another folder."
        ) from error
    except OSError as error:
        raise unwritable(f"{path}: the folder cannot be locked ({_reason(error)}).", error) from error
    try:
        yield
    finally:
        if not keep:
            # Delete the file before the release: a waiting process then sees that it is gone, and creates it anew.
            with contextlib.suppress(OSError):
                path.unlink()
        lock.release()


def atomic_write(path: str | os.PathLike[str], data: str | bytes) -> Path:
    """Write a file so that no reader and no interruption ever leaves or sees half of it.

    The data are written to a hidden temporary file in the same folder (a rename is atomic within one file system only),
    flushed to the disk, and renamed by `os.replace`. On an error the temporary file is removed and `path` is unchanged.

    Parameters
    ----------
    path : str or PathLike
        The file; an existing one is replaced.
    data : str or bytes
        The content; text is stored as UTF-8 with unchanged line ends.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ProtquantError
        If the file cannot be written, for instance because its folder does not exist; an `OutputError` if the disk is
        full.
    """
    target = Path(path)
    temporary = _temporary(target.parent)
    try:
        # Not the tempfile module: only the owner could read its files, whatever the umask is.
        with temporary.open("xb") as stream:
            stream.write(data.encode("utf-8") if isinstance(data, str) else data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except OSError as error:
        _discard(temporary)
        raise unwritable(
            f"{target}: the file cannot be written ({_reason(error)}). "
            "Check that its folder exists and can be written, that no folder has this name and that the disk has room.",
            error,
        ) from error
    except BaseException:  # also remove the temporary file after an interruption (Ctrl-C)
        _discard(temporary)
        raise
    _flush_folder(target.parent)
    return target


def _temporary(folder: Path) -> Path:
    return folder / f".protquant-{_part}-{secrets.token_hex(8)}.tmp"


def _discard_all(folder: Path, pattern: str) -> None:
    for temporary in folder.glob(pattern):
        _discard(temporary)


def _discard(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        temporary.unlink()


def _flush_folder(folder: Path) -> None:
    """Flush the rename to disk, where the system can flush a folder (not on Windows, not on every network share)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
