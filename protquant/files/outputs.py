"""Files that appear whole or not at all: write beside the target, flush to disk, then rename over it."""

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
_part = ""  # what this process writes: temporary files of others are not its own to remove


class OutputError(ProtquantError):
    """The disk is full or cannot be written any more, so that all that follows could not be written either."""


# Of a file that cannot be written: those that are of its disk, and not of itself.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def unwritable(message: str, error: OSError) -> ProtquantError:
    """The error for something that cannot be written: an `OutputError` where it is the disk's."""
    return OutputError(message) if error.errno in _OF_THE_DISK else ProtquantError(message)


def prepare_folder(path: str | os.PathLike[str]) -> Path:
    """Make sure that `path` is a folder in which files can be created.

    Parameters
    ----------
    path : str or PathLike
        The folder; it and its parents are created where they are missing.

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
    # Permission bits do not tell (root, read-only mounts, full disks, network shares); an attempt does.
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
    """Keep other processes from writing to a folder, and remove what one that was killed has left unfinished there.

    Parameters
    ----------
    folder : Path
        One that is there.
    part : str
        Label of a shard: processes of other shards may write as well, and one of the whole may not.

    Raises
    ------
    ProtquantError
        If another process writes to it.
    """
    global _part  # noqa: PLW0603 (of this process)
    with _locked(folder, part):
        locks = folder.glob(f"{_LOCK_BEGINS}*{_LOCK_ENDS}")
        others = [path.name.removeprefix(_LOCK_BEGINS).removesuffix(_LOCK_ENDS) for path in locks]
        for other in others:
            # Shards go together; the whole goes with none of them. A lock that nobody holds was left by the killed.
            if other != part and not (part and other):
                # Others may be looking at it, too, for that moment.
                with _locked(folder, other, _SECONDS_FOR_A_LOOK, keep=bool(part)):
                    pass
        before, _part = _part, part
        temporary = f".protquant-{f'{part}-' if part else ''}*.tmp"
        try:
            _discard_all(folder, temporary)
            yield
        finally:
            _discard_all(folder, temporary)  # of workers that were ended
            _part = before


@contextlib.contextmanager
def _locked(folder: Path, part: str, seconds: float = 0, *, keep: bool = False) -> Iterator[None]:
    from filelock import FileLock, Timeout  # noqa: PLC0415 (it takes time to import, and reading needs it not)

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
            # While it is still held. Who has opened it meanwhile sees that it is gone, and makes it anew.
            with contextlib.suppress(OSError):
                path.unlink()
        lock.release()


def atomic_write(path: str | os.PathLike[str], data: str | bytes) -> Path:
    """Write a file so that a reader, or an interruption, never meets half of it.

    The data go to a hidden temporary file in the same folder (a rename is atomic within one file system only), are
    flushed to the disk, and take the file's name by `os.replace`. On an error the temporary file is removed and what
    `path` held before stays as it was.

    Parameters
    ----------
    path : str or PathLike
        The file; an existing one is replaced.
    data : str or bytes
        Its whole content; text is stored as UTF-8 with the line ends it has.

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
        # Not the tempfile module: its files are readable by their owner only, whatever the umask says.
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
    except BaseException:  # an interruption (Ctrl-C) must not leave the temporary file either
        _discard(temporary)
        raise
    _flush_folder(target.parent)
    return target


def _temporary(folder: Path) -> Path:
    return folder / f".protquant-{_part}-{secrets.token_hex(8)}.tmp"


def _discard_all(folder: Path, pattern: str) -> None:
    for each in folder.glob(pattern):
        _discard(each)


def _discard(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        temporary.unlink()


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be flushed (not Windows, not every share)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
