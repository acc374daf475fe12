"""An entry of the manifest: the size and hash of each file of a target, or the reason why it failed."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

__all__ = ["ManifestEntry", "OutputFile"]

Status = Literal["done", "failed"]


@dataclass(frozen=True)
class OutputFile:
    """Size in bytes and SHA-256 of a file."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "OutputFile":
        """Return the size and hash of a file."""
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return cls(path.stat().st_size, digest)

    def matches(self, path: Path) -> bool:
        """Whether `path` is a file with this content. The size is compared first, because that is fast."""
        try:
            return path.is_file() and path.stat().st_size == self.size and OutputFile.of(path) == self
        except OSError:
            return False


@dataclass(frozen=True)
class ManifestEntry:
    """Outcome of a target.

    Attributes
    ----------
    name, header : str
        Stem of the target's files, and its header in the FASTA file.
    fingerprint : str
        Fingerprint of the settings.
    status : {"done", "failed"}
        Whether folding succeeded.
    files : mapping of str to OutputFile
        Files of the target, by path relative to the manifest's folder.
    error : str or None
        Reason for a failure.
    row : mapping
        Row of the target in the table of results.
    """

    name: str
    header: str
    fingerprint: str
    status: Status
    files: Mapping[str, OutputFile]
    error: str | None
    row: Mapping[str, Any]

    @classmethod
    def of(cls, document: dict[str, Any]) -> "ManifestEntry":
        """Return the entry of a JSON object.

        Raises
        ------
        ValueError, KeyError, TypeError, AttributeError
            If the object is not an entry.
        """
        files = {path: OutputFile(int(file["size"]), str(file["sha256"])) for path, file in document["files"].items()}
        texts = [document[key] for key in ("name", "header", "fingerprint", "status")]
        if not all(isinstance(text, str) for text in texts) or document["status"] not in get_args(Status):
            raise ValueError("not the entry of a target")
        name, header, print_, status = texts
        return cls(name, header, print_, status, files, document["error"], dict(document["row"]))

    def line(self) -> str:
        """Return the entry as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    def outdated_by(self, later: "ManifestEntry") -> list[str]:
        """Return the files of this entry that a later entry with other settings did not replace.

        Only plain file names are returned, so that a manipulated manifest cannot make files elsewhere be deleted.
        """
        if later.status != "done" or self.fingerprint == later.fingerprint:
            return []
        return [file for file in self.files if file not in later.files and Path(file).name == file and "\\" not in file]
