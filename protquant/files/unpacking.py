"""Reading and unpacking files of others within bounds: a small file may unpack to more than there is memory."""

import gzip
import zlib
from io import BytesIO
from typing import BinaryIO

from protquant.errors import ProtquantError

__all__ = ["MAX_UNPACKED", "gunzipped", "read_bounded"]

MAX_UNPACKED = 2**30
"""Bytes that a file may have, or unpack to; the largest entry of the PDB takes a third of this."""
MAX_RATIO = 100
"""How many times as large as it was packed a file may become; variants of one protein are packed some 100 times."""
UNSUSPICIOUS = 2**28
"""Bytes that a file may unpack to, whatever the ratio."""

_MAGIC = b"\x1f\x8b"


def read_bounded(stream: BinaryIO, source: str) -> bytes:
    """Read a stream to its end, which may be a device that has none.

    Raises
    ------
    ProtquantError
        If it has more than 1 GiB.
    """
    data = _read(stream, MAX_UNPACKED + 1)
    if len(data) > MAX_UNPACKED:
        raise ProtquantError(f"{source}: has more than {MAX_UNPACKED / 2**30:g} GiB, and is not read; split it.")
    return data


def _read(stream: BinaryIO | gzip.GzipFile, most: int) -> bytes:
    """Read at most so many bytes, by little: one call would ask for memory for all that there may be."""
    read = BytesIO()
    while (left := most - read.tell()) > 0 and (some := stream.read(min(left, 2**20))):
        read.write(some)
    return read.getvalue()


def gunzipped(data: bytes, source: str) -> bytes:
    """The content of a gzip file, told by its first bytes; any other data as they are.

    Parameters
    ----------
    source : str
        For messages.

    Raises
    ------
    ProtquantError
        If it is damaged, unpacks to more than 1 GiB, or to 100 times its size where that is more than 256 MiB.
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
            f"{source}: {len(data)} bytes unpack to more than {most / 2**20:.0f} MiB, and are not read. If the file is"
            " what it should be, unpack it."
        )
    return unpacked
