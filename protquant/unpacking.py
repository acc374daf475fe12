"""Unpacking what others have packed, within a bound: a small file may unpack to more than there is memory."""

import gzip
import zlib
from io import BytesIO

from protquant.errors import ProtquantError

__all__ = ["MAX_UNPACKED", "gunzipped"]

MAX_UNPACKED = 2**30
"""Bytes that a file may unpack to; the largest entry of the PDB takes a third of this."""

_MAGIC = b"\x1f\x8b"


def gunzipped(data: bytes, source: str) -> bytes:
    """The content of a gzip file, told by its first bytes; any other data as they are.

    Parameters
    ----------
    source : str
        For messages.

    Raises
    ------
    ProtquantError
        If it is damaged, or unpacks to more than 1 GiB.
    """
    if not data.startswith(_MAGIC):
        return data
    try:
        unpacked = gzip.GzipFile(fileobj=BytesIO(data)).read(MAX_UNPACKED + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ProtquantError(
            f"{source}: the gzip file is damaged or cut short ({error}). Compress or download it again."
        ) from error
    if len(unpacked) > MAX_UNPACKED:
        raise ProtquantError(f"{source}: unpacks to more than {MAX_UNPACKED / 2**30:g} GiB, and is not read.")
    return unpacked
