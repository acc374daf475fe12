"""Write checkpoint folders atomically, and hash their files to detect damage."""

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from protquant.errors import ProtquantError

__all__ = ["CONFIG", "SCHEME", "WEIGHTS", "check_new_folder", "file_hash", "file_hashes", "new_folder"]

CONFIG, SCHEME, WEIGHTS = "config.json", "scheme.json", "model.safetensors"
_MOST_THREADS = 4
# A quantized checkpoint has a file of weights for each block, named by its path in the model.
_BLOCK_WEIGHTS = re.compile(r"[a-z_.]+\.\d+\.safetensors")


@contextmanager
def new_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary folder to write a checkpoint into; afterwards rename it to `folder`.

    Parameters
    ----------
    overwrite : bool
        Replace the checkpoint in the folder, after the new one is written. A folder with other files is never replaced.

    Raises
    ------
    ProtquantError
        If the folder is not empty, or cannot be written.
    """
    check_new_folder(folder, overwrite)
    token = secrets.token_hex(8)
    temporary, replaced = folder.parent / f".protquant-{token}.tmp", folder.parent / f".protquant-{token}.old"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.iterdir():
            # safetensors makes files that only their owner may read, whatever the umask.
            path.chmod(temporary.stat().st_mode & 0o666)
            _flush(path)
        if folder.exists():
            folder.rename(replaced)
        temporary.rename(folder)
    except OSError as error:
        raise ProtquantError(
            f"{folder}: the checkpoint cannot be written ({error.strerror or type(error).__name__}). Name another"
            " folder, or check its permissions and the room on the disk."
        ) from error
    finally:
        if replaced.exists() and not folder.exists():  # interrupted between the two renames
            replaced.rename(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def check_new_folder(folder: Path, overwrite: bool) -> None:
    """Raise an error early for a folder that `new_folder` would refuse.

    Raises
    ------
    ProtquantError
        If the folder contains a checkpoint and `overwrite` is False, or other files.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not overwrite):
        raise ProtquantError(f"{folder}: already exists and is not empty; name another folder or ask to overwrite it.")
    if folder.is_dir() and (strangers := sorted(path.name for path in folder.iterdir() if not _is_ours(path))):
        raise ProtquantError(
            f"{folder}: not overwritten, because it contains files that are not part of a checkpoint"
            f" ({', '.join(strangers[:3])}); name another folder."
        )


def _is_ours(path: Path) -> bool:
    return path.name in (CONFIG, SCHEME, WEIGHTS) or _BLOCK_WEIGHTS.fullmatch(path.name) is not None


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_hashes(paths: Sequence[Path]) -> list[str]:
    """Return the SHA-256 of files, in hexadecimal; several files are read at the same time."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as pool:
        return list(pool.map(file_hash, paths))


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
