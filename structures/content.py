"""Recognition of file formats by their content, not by the name of the file."""

import re
from dataclasses import dataclass
from typing import Literal

from protquant.errors import ProtquantError
from protquant.files.unpacking import gunzipped

__all__ = ["Content", "recognize"]

_ARCHIVES = {b"PK\x03\x04": "a zip archive", b"BZh": "packed by bzip2", b"\xfd7zXZ\x00": "packed by xz"}
_ARCHIVES |= {b"(\xb5/\xfd": "packed by zstd", b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a rar archive"}
# CIF may begin with comments and blank lines, and its keywords may be in upper case.
_CIF = re.compile(r"\s*(?:#[^\n]*\n\s*)*(?:data_|loop_|global_|save_|_[a-z])", re.IGNORECASE)
_PDB = re.compile(r"^(?:ATOM[ \d]|HETATM)", re.MULTILINE | re.IGNORECASE)
_TAR = slice(257, 262), b"ustar"
_PDB_HEADER = re.compile(r"\s*(?:HEADER|TITLE |COMPND|REMARK|CRYST1|MODEL |EXPDTA|SEQRES)")
# First words, in lower case, of files that users give by mistake.
_OTHERS = (
    (r"version https://git-lfs", "a pointer of git-lfs, not the file itself: run `git lfs pull`"),
    (r"<(?:!doctype\s+html|html|head|body)", "a web page instead of the download: open it to see why"),
    (r"<(?:\?xml|pdbx:|!doctype)", "XML, which is not supported: give PDB or mmCIF"),
    (r"[{\[]", "JSON: give the PDB or mmCIF file of this structure"),
    (r">", "a FASTA file, which has sequences but no coordinates"),
)


@dataclass(frozen=True)
class Content:
    """The content of a structure file.

    Attributes
    ----------
    kind : str
        `pdb`, `cif` or `bcif`.
    text : str
        Content as text; empty for `bcif`.
    data : bytes
        Content as unpacked bytes.
    """

    kind: Literal["pdb", "cif", "bcif"]
    text: str
    data: bytes


def recognize(content: bytes, source: str) -> Content:
    """Unpack gzipped content, and recognize PDB, mmCIF and BinaryCIF.

    Parameters
    ----------
    source : str
        Name of the file, for messages.

    Raises
    ------
    ProtquantError
        If the content is none of these; the message names its format, if known.
    """
    data = _unpack(content, source)
    if data[_TAR[0]] == _TAR[1]:
        raise ProtquantError(f"{source}: is a tar archive: unpack it.")
    if not data.strip(b"\x00 \t\r\n"):
        raise ProtquantError(f"{source}: is empty.")
    if b"dataBlocks" in data[:4096] and not data[:1].isascii():
        return Content("bcif", "", data)
    text = _decode(data)
    if _CIF.match(text):
        return Content("cif", text, data)
    if _PDB.search(text):
        return Content("pdb", text, data)
    start = text.lstrip().lower()
    for pattern, what in _OTHERS:
        if re.match(pattern, start):
            raise ProtquantError(f"{source}: is {what}.")
    if _PDB_HEADER.match(text):
        raise ProtquantError(f"{source}: has no atoms: no line begins with ATOM or HETATM.")
    raise ProtquantError(f"{source}: is not a structure: neither PDB, mmCIF nor BinaryCIF, plain or gzipped.")


def _unpack(content: bytes, source: str) -> bytes:
    for magic, what in _ARCHIVES.items():
        if content.startswith(magic):
            raise ProtquantError(f"{source}: is {what}: unpack it, or pack it by gzip.")
    return gunzipped(content, source)


def _decode(data: bytes) -> str:
    """Return the content as text; bytes that are not UTF-8, usually in names of authors, are replaced."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="replace")
