"""File stems from FASTA headers: readable, unique within a file, and never containing a path."""

import os
import re
import unicodedata
from collections.abc import Callable, Sequence

__all__ = ["MAX_NAME_LENGTH", "Naming", "header_names", "safe_name", "unique_names"]

Naming = Callable[[Sequence[str], Sequence[int]], list[str]]
"""Function that returns distinct file stems for records, given their headers and their numbers in the file."""

MAX_NAME_LENGTH = 100
"""Largest length of a name: file systems allow 255 bytes, including suffixes such as `_pae.json`."""

_MAX_HEADER_BYTES = 240  # file systems allow 255, including suffixes
_OF_PATHS = frozenset('/\\:*?"<>|' if os.name == "nt" else "/\\")

# Device names of Windows: no file with such a stem can be created there.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)


def safe_name(header: str, ordinal: int = 1) -> str:
    """Return the first word of a header as a file stem that is safe on Linux, macOS and Windows.

    The name has only ASCII letters, digits, `.`, `_` and `-`: accents are dropped, and any other run of characters
    becomes one `_`. A name does not start or end with `.`, `_` or `-`, does not contain `..`, is not a device name of
    Windows, and has at most `MAX_NAME_LENGTH` characters.

    Parameters
    ----------
    header : str
        A FASTA header, with or without its `>`.
    ordinal : int, optional
        Number of the record in its file, from 1: a header without usable characters becomes `record_<ordinal>`.

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
    # Normalize before filtering, because a full-width solidus or a "care of" sign decomposes to "/".
    plain = unicodedata.normalize("NFKD", words[0] if words else "").encode("ascii", "ignore").decode("ascii")
    slug = re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._-]+", "_", plain))
    slug = slug.strip("._-")
    if _RESERVED.match(slug):
        slug = f"record_{slug}"
    return slug[:MAX_NAME_LENGTH].rstrip("._-") or f"record_{ordinal}"


def unique_names(headers: Sequence[str], ordinals: Sequence[int] | None = None) -> list[str]:
    """Return a safe name for each header, distinct even on a file system that ignores case.

    The first record with a name keeps it; later ones get `_2`, `_3` and so on, skipping names of other headers.

    Parameters
    ----------
    headers : sequence of str
        The headers of a file, in order.
    ordinals : sequence of int, optional
        Numbers of the records, used for headers without a name; by default 1, 2, 3, ...

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
    return _distinct(stems, MAX_NAME_LENGTH)


def header_names(headers: Sequence[str], ordinals: Sequence[int]) -> list[str]:
    r"""Return whole headers as file stems, like fair-esm's `esm-fold`.

    Only separators of paths (`/`, `\`, on Windows also `:*?"<>|`) and invisible characters (controls, marks of
    direction) become `_`. A header of more than 240 bytes is cut, and an empty one becomes `record_<ordinal>`. Equal
    names get `_2`, `_3` and so on, as in `unique_names`; `esm-fold` would overwrite the first file.

    Parameters
    ----------
    headers : sequence of str
        The headers of a file, in order.
    ordinals : sequence of int
        Numbers of the records.

    Returns
    -------
    list of str, length len(headers)

    Examples
    --------
    >>> header_names(["sp|P69905|HBA_HUMAN Hemoglobin", "../a", "../a"], [1, 2, 3])
    ['sp|P69905|HBA_HUMAN Hemoglobin', '.._a', '.._a_2']
    """
    stems = [
        _cut(_of_header(header), _MAX_HEADER_BYTES) or f"record_{ordinal}"
        for header, ordinal in zip(headers, ordinals, strict=True)
    ]
    return _distinct(stems, _MAX_HEADER_BYTES)


def _of_header(header: str) -> str:
    name = "".join("_" if char in _OF_PATHS or unicodedata.category(char)[0] == "C" else char for char in header)
    return f"_{name}" if os.name == "nt" and _RESERVED.match(name) else name


def _distinct(stems: Sequence[str], longest: int) -> list[str]:
    """Return the stems, with a number appended to repeated ones; none has more than `longest` bytes."""
    # A stem that occurs in the file is reserved for its record: "a_2" must not name the second "a".
    reserved = {_key(stem) for stem in stems}
    seen: set[str] = set()
    following: dict[str, int] = {}
    names = []
    for stem in stems:
        name, key = stem, _key(stem)
        if key in seen:
            number = following.get(key, 2)
            while _key(name := _numbered(stem, number, longest)) in reserved:
                number += 1
            following[key] = number + 1
            reserved.add(_key(name))
        seen.add(key)
        names.append(name)
    return names


def _key(stem: str) -> str:
    """Return a key that is equal for names that a file system may not distinguish."""
    return unicodedata.normalize("NFC", stem.lower())


def _numbered(stem: str, number: int, longest: int) -> str:
    suffix = f"_{number}"
    return _cut(stem, longest - len(suffix)) + suffix


def _cut(stem: str, longest: int) -> str:
    """Return the first `longest` bytes, without an incomplete character at the end."""
    return stem.encode()[:longest].decode(errors="ignore")
