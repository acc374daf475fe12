"""File stems from FASTA headers: readable, unique within a file, and never a path."""

import os
import re
import unicodedata
from collections.abc import Callable, Sequence

__all__ = ["MAX_NAME_LENGTH", "Naming", "header_names", "safe_name", "unique_names"]

Naming = Callable[[Sequence[str], Sequence[int]], list[str]]
"""File stems of records, no two of them equal, from their headers and their numbers in the file."""

MAX_NAME_LENGTH = 100
"""Characters a name may have: file systems allow 255 bytes, and suffixes such as `_pae.json` follow it."""

_MAX_HEADER_BYTES = 240  # of the 255 that file systems allow
_OF_PATHS = frozenset('/\\:*?"<>|' if os.name == "nt" else "/\\")

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
    return _distinct(stems, MAX_NAME_LENGTH)


def header_names(headers: Sequence[str], ordinals: Sequence[int]) -> list[str]:
    r"""Whole headers as file stems, which is how fair-esm's `esm-fold` names its files.

    Only what would make a path of a name is replaced: `/`, `\`, on Windows also `:*?"<>|`, and characters that nobody
    sees (controls, marks of direction) become `_`. A header of more than 240 bytes is cut, and an empty one is called
    `record_<ordinal>`. Equal names get `_2`, `_3` and so on, as in `unique_names`; `esm-fold` would overwrite the first
    file.

    Parameters
    ----------
    headers : sequence of str
        The headers of a file, in order.
    ordinals : sequence of int
        The records' numbers.

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
    name = "".join("_" if each in _OF_PATHS or unicodedata.category(each)[0] == "C" else each for each in header)
    return f"_{name}" if os.name == "nt" and _RESERVED.match(name) else name


def _distinct(stems: Sequence[str], longest: int) -> list[str]:
    """The stems, of which later ones of a name have a number behind them; none has more than `longest` bytes."""
    # Names that stand in the file come first, so that "a_2" is the record that says so and not the second "a".
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
    """Return a key that two names share if some file system takes them for one."""
    return unicodedata.normalize("NFC", stem.lower())


def _numbered(stem: str, number: int, longest: int) -> str:
    suffix = f"_{number}"
    return _cut(stem, longest - len(suffix)) + suffix


def _cut(stem: str, longest: int) -> str:
    """The first `longest` bytes, without a character that is cut in two."""
    return stem.encode()[:longest].decode(errors="ignore")
