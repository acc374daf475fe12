"""Read and decompress untrusted files within bounds: a small file may decompress to more than the memory holds."""

import gzip
import zlib
from io import BytesIO
from typing import BinaryIO

from protquant.errors import ProtquantError

__all__ = ["MAX_UNPACKED", "gunzipped", "read_bounded"]

MAX_UNPACKED = 2**30
"""Largest size of a file in bytes, unpacked; the largest entry of the PDB takes a third of this."""
MAX_RATIO = 100
"""Largest ratio of the unpacked size to the packed size; files of variants of one protein reach about 100."""
UNSUSPICIOUS = 2**28
"""Unpacked size in bytes up to which any ratio is accepted."""

_MAGIC = b"\x1f\x8b"


def read_bounded(stream: BinaryIO, source: str) -> bytes:
    """Read a stream to its end. The size is bounded, because a device may have no end.

    Raises
    ------
    ProtquantError
        If the stream has more than 1 GiB.
    """
    data = _read(stream, MAX_UNPACKED + 1)
    if len(data) > MAX_UNPACKED:
        raise ProtquantError(f"{source}: a file of more than {MAX_UNPACKED / 2**30:g} GiB is not read; split it.")
    return data


def _read(stream: BinaryIO | gzip.GzipFile, most: int) -> bytes:
    """Read at most `most` bytes, in small pieces: a single call would allocate memory for all `most` bytes."""
    read = BytesIO()
    while (left := most - read.tell()) > 0 and (piece := stream.read(min(left, 2**20))):
        read.write(piece)
    return read.getvalue()


def gunzipped(data: bytes, source: str) -> bytes:
    """Return the content of a gzip file, recognized by its first bytes; return any other data unchanged.

    Parameters
    ----------
    source : str
        Name of the file, for messages.

    Raises
    ------
    ProtquantError
        If the file is damaged, unpacks to more than 1 GiB, or to more than 256 MiB and 100 times its size.
    """
    if not data.startswith(_MAGIC):
        return data
    most = min(MAX_UNPACKED, max(UNSUSPICIOUS, MAX_RATIO * len(data)))
    try:
        unpacked = _read(gzip.GzipFile(fileobj=BytesIO(data)), most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ProtquantError(
            f"{source}: the gzip file is damaged or cut short ({error}). Compress or download it again."
        ) from error
    if len(unpacked) > most:
        raise ProtquantError(
            f"{source}: {len(data)} bytes unpack to more than {most / 2**20:.0f} MiB and are not read. If you trust it,"
            " unpack it yourself."
        )
    return unpacked
