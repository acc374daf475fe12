"""An entry of the manifest: the files of a target as they were written, or the reason why there are none."""

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
    """A file as it was written: size in bytes and SHA-256."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "OutputFile":
        """Measure a file."""
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return cls(path.stat().st_size, digest)

    def matches(self, path: Path) -> bool:
        """Whether `path` is a file with this content; the size is compared first, as it costs nothing."""
        try:
            return path.is_file() and path.stat().st_size == self.size and OutputFile.of(path) == self
        except OSError:
            return False


@dataclass(frozen=True)
class ManifestEntry:
    """What became of a target.

    Attributes
    ----------
    name, header : str
        Stem of its files, and its header as it stood in the FASTA file.
    fingerprint : str
        Of the settings it was folded with.
    status : {"done", "failed"}
        The outcome.
    files : mapping of str to OutputFile
        Its files, by path relative to the manifest's folder.
    error : str or None
        Why it failed.
    row : mapping
        Its row in the table of results.
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
            If it is none.
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
        """Return the files of this entry that a prediction by other settings has left behind.

        A path that is not a plain name is left out: a manifest that somebody changed must not name files elsewhere.
        """
        if later.status != "done" or self.fingerprint == later.fingerprint:
            return []
        return [file for file in self.files if file not in later.files and Path(file).name == file and "\\" not in file]
