"""File stems from FASTA headers: readable, unique within a file, and never a path."""

import re
import unicodedata
from collections.abc import Sequence

__all__ = ["MAX_NAME_LENGTH", "safe_name", "unique_names"]

MAX_NAME_LENGTH = 100
"""Characters a name may have: file systems allow 255 bytes, and suffixes such as `_pae.json` follow it."""

# Device names of Windows: files of that stem, whatever their extension, cannot be created there.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)


def safe_name(header: str, ordinal: int = 1) -> str:
    """The first word of a header as a file stem that is safe on Linux, macOS and Windows.

    Only ASCII letters, digits, `.`, `_` and `-` stay (accents are dropped, every other run of characters becomes one
    `_`); no name starts or ends with `.`, `_` or `-`, holds `..`, is a device name of Windows or is longer than
    `MAX_NAME_LENGTH`.

    Parameters
    ----------
    header : str
        A FASTA header, with or without its `>`.
    ordinal : int, optional
        The record's number in its file, from 1: a header with nothing usable is called `record_<ordinal>`.

    Returns
    -------
    str

    Examples
    --------
    >>> safe_name("sp|P69905|HBA_HUMAN Hemoglobin subunit alpha")
    'sp_P69905_HBA_HUMAN'
    >>> safe_name("../../etc/passwd")
    'etc_passwd'
    >>> safe_name("", ordinal=3)
    'record_3'
    """
    words = header.lstrip(">").split(maxsplit=1)
    # Compatibility forms first: a full-width solidus or a "care of" sign would otherwise decompose to "/" later on.
    plain = unicodedata.normalize("NFKD", words[0] if words else "").encode("ascii", "ignore").decode("ascii")
    slug = re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._-]+", "_", plain))
    slug = slug.strip("._-")
    if _RESERVED.match(slug):
        slug = f"record_{slug}"
    return slug[:MAX_NAME_LENGTH].rstrip("._-") or f"record_{ordinal}"


def unique_names(headers: Sequence[str], ordinals: Sequence[int] | None = None) -> list[str]:
    """A safe name for each header, no two of them equal, not even where the file system folds case.

    The first record of a name keeps it; later ones get `_2`, `_3` and so on, skipping names that other headers have.

    Parameters
    ----------
    headers : sequence of str
        The headers of a file, in order.
    ordinals : sequence of int, optional
        The records' numbers for nameless ones; by default 1, 2, 3, ...

    Returns
    -------
    list of str, length len(headers)

    Examples
    --------
    >>> unique_names(["a", "A", "a_2", "a"])
    ['a', 'A_3', 'a_2', 'a_4']
    """
    ordinals = range(1, len(headers) + 1) if ordinals is None else ordinals
    stems = [safe_name(header, ordinal) for header, ordinal in zip(headers, ordinals, strict=True)]
    # Names that stand in the file come first, so that "a_2" is the record that says so and not the second "a".
    reserved = {stem.lower() for stem in stems}
    seen: set[str] = set()
    following: dict[str, int] = {}
    names = []
    for stem in stems:
        name, key = stem, stem.lower()
        if key in seen:
            number = following.get(key, 2)
            while (name := _numbered(stem, number)).lower() in reserved:
                number += 1
            following[key] = number + 1
            reserved.add(name.lower())
        seen.add(key)
        names.append(name)
    return names


def _numbered(stem: str, number: int) -> str:
    suffix = f"_{number}"
    return stem[: MAX_NAME_LENGTH - len(suffix)] + suffix
