"""The manifest: a record of finished targets, which the next run skips.

A target is done if the manifest has an entry with the same settings and its files have the recorded content. The
manifest, `manifest.jsonl`, is a text file of one JSON object per line: first the version, then a line for each finished
or failed target. The last line of a name is valid. A line is appended after the target's files are complete, so an
interruption can only cut the last line short; that line is then dropped and its target folded anew. Targets that are
folded in one batch are recorded in one write (`together`), so that a resumed run makes the same batches, and thus the
same results, as an uninterrupted one. The last line of a shard says whether its run is complete.

In contrast to a `RunStore`, the manifest lists and checks the output files of each target, is read by users and by
`merge`, and has one valid entry for each name, whatever the settings. Both are files of JSON lines
(`protquant.files.json_lines`).
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from protquant.errors import ProtquantError
from protquant.files.fingerprints import json_value
from protquant.files.json_lines import append_lines, split_lines
from protquant.files.manifest_entry import ManifestEntry, OutputFile
from protquant.files.outputs import atomic_write, prepare_folder
from protquant.files.plain_data import parse_json

__all__ = ["MANIFEST_NAME", "Manifest"]

MANIFEST_NAME = "manifest.jsonl"
_VERSION = 1
_HEAD = {"protquant_manifest": _VERSION}


class Manifest:
    """The finished and failed targets of one output folder. Only one process at a time may write it.

    Parameters
    ----------
    folder : Path
        The output folder.
    entries : mapping of str to ManifestEntry, optional
        Known entries by name. Use `Manifest.load` to read them from the folder.
    part : str
        Label of a shard, which has a manifest of its own; empty for the manifest of the whole run.

    Attributes
    ----------
    partition : str
        Description of the run that the shard is part of.
    ended : bool
        Whether the last run of a shard is complete (`end`), and no other has folded since.
    """

    def __init__(self, folder: Path, entries: Mapping[str, ManifestEntry] | None = None, part: str = "") -> None:
        self.folder, self.part, self.partition = folder, part, ""
        self.ended = False
        self._entries = dict(entries or {})
        self._of_whole: dict[str, ManifestEntry] = {}
        # Lines cannot be appended, because the file is new or its last line is cut: the next write replaces the file.
        self._rewrite = True
        self._held: list[ManifestEntry] | None = None

    @property
    def path(self) -> Path:
        """Path of the manifest's file."""
        return self.folder / (f"manifest.{self.part}.jsonl" if self.part else MANIFEST_NAME)

    @property
    def entries(self) -> dict[str, ManifestEntry]:
        """Valid entry of each target by name, in the order in which the targets were first recorded.

        For a shard, the entries of the whole run's manifest are included.
        """
        return self._of_whole | self._entries

    @property
    def own_entries(self) -> dict[str, ManifestEntry]:
        """As `entries`, without those that only the manifest of the whole run has."""
        return dict(self._entries)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], part: str = "") -> "Manifest":
        """Read the manifest of a folder; without the file or the folder, the manifest is empty.

        Parameters
        ----------
        part : str
            Label of a shard.

        Raises
        ------
        ProtquantError
            If the manifest cannot be read, is damaged, or was written by a later version.
        """
        manifest = cls(Path(folder), part=part)
        if part:
            manifest._of_whole = cls.load(folder).entries
        try:
            data = manifest.path.read_bytes()
        except FileNotFoundError:
            return manifest
        except OSError as error:
            raise ProtquantError(
                f"{manifest.path}: the manifest cannot be read ({error.strerror}). "
                "Check the permissions, or name another output folder."
            ) from error
        lines, tail = split_lines(data)
        for number, line in enumerate(lines or [tail], start=1):
            manifest._read_line(line, number)
        if lines and tail:  # the last write was interrupted; the entry may still be complete but for its line end
            with contextlib.suppress(ProtquantError):
                manifest._read_line(tail, len(lines) + 1)
        manifest._rewrite = bool(tail)
        return manifest

    @classmethod
    def partition_of(cls, folder: Path, part: str) -> str:
        """Return the `partition` of a shard, reading only the first line of its manifest.

        Raises
        ------
        ProtquantError
            If it cannot be read, or is damaged.
        """
        manifest = cls(folder, part=part)
        try:
            with manifest.path.open("rb") as stream:
                manifest._read_line(stream.readline(), 1)
        except OSError as error:
            raise ProtquantError(f"{manifest.path}: the manifest cannot be read ({error.strerror}).") from error
        return manifest.partition

    def is_done(self, name: str, fingerprint: str) -> bool:
        """Whether a target was folded with these settings and its files are unchanged."""
        entry = self._entries.get(name) or self._of_whole.get(name)
        return (
            entry is not None
            and entry.status == "done"
            and entry.fingerprint == fingerprint
            and all(file.matches(self.folder / path) for path, file in entry.files.items())
        )

    def record(
        self, name: str, header: str, fingerprint: str, files: Iterable[str | os.PathLike[str]], row: Mapping[str, Any]
    ) -> ManifestEntry:
        """Record that a target is done. Call this when all its files are complete.

        Earlier files of the same settings, in other formats, stay listed. Earlier files of other settings that were not
        written anew are removed, as they could be mistaken for files of this prediction.

        Parameters
        ----------
        name, header : str
            Stem of the target's files, and its header in the FASTA file.
        fingerprint : str
            Fingerprint of the settings, see `fingerprint`.
        files : iterable of path
            Files of the target, inside the manifest's folder.
        row : mapping of str to value
            Row of the target in the table of results; numbers that are not finite become null.

        Returns
        -------
        ManifestEntry

        Raises
        ------
        ProtquantError
            If the manifest cannot be written.
        """
        written = {os.path.relpath(path, self.folder).replace(os.sep, "/"): OutputFile.of(Path(path)) for path in files}
        if (known := self.entries.get(name)) is not None and known.fingerprint == fingerprint:
            earlier = {path: file for path, file in known.files.items() if path not in written}
            written |= {path: file for path, file in earlier.items() if file.matches(self.folder / path)}
        return self._note(ManifestEntry(name, header, fingerprint, "done", written, None, json_value(row)))

    def record_failure(
        self, name: str, header: str, fingerprint: str, error: str, row: Mapping[str, Any] | None = None
    ) -> ManifestEntry:
        """Record that a target failed, and why; the next run tries it again.

        Raises
        ------
        ProtquantError
            If the manifest cannot be written.
        """
        return self._note(ManifestEntry(name, header, fingerprint, "failed", {}, error, json_value(row or {})))

    def begin(self, partition: str = "") -> None:
        """Write the file if it does not exist, so that a shard without targets has one too.

        Parameters
        ----------
        partition : str
            Description of the run that the shards are part of; stored in the file.

        Raises
        ------
        ProtquantError
            If it cannot be written.
        """
        if not self.path.exists():
            self.partition = partition
            self._add()

    def end(self) -> None:
        """Record that the run of a shard is complete: each of its targets is done or has failed.

        Raises
        ------
        ProtquantError
            If the manifest cannot be written.
        """
        if self._rewrite:
            self._add()
        if not self.ended:
            self._append([json.dumps({"ended": True})])
        self.ended = True

    def reopen(self) -> None:
        """Record that a shard is resumed: until `end`, its files may be newer than their entries.

        Raises
        ------
        ProtquantError
            If the manifest cannot be written.
        """
        if self.ended:
            self._append([json.dumps({"ended": False})])
        self.ended = False

    def take(self, entry: ManifestEntry) -> ManifestEntry:
        """Record an entry from another manifest of the folder.

        Raises
        ------
        ProtquantError
            If the manifest cannot be written.
        """
        return self._note(entry)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Collect the targets recorded inside the `with` block, and write them at its end; write none after an error.

        Raises
        ------
        ProtquantError
            If the manifest cannot be written.
        """
        held: list[ManifestEntry] = []
        self._held = held
        try:
            yield
        finally:
            self._held = None
        if held:
            self._add(*held)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the targets that are done."""
        return [dict(entry.row) for entry in self._entries.values() if entry.status == "done"]

    def failures(self) -> list[ManifestEntry]:
        """Return the entries of the targets that failed."""
        return [entry for entry in self._entries.values() if entry.status == "failed"]

    def _note(self, entry: ManifestEntry) -> ManifestEntry:
        if self._held is None:
            self._add(entry)
        else:
            self._held.append(entry)
        return entry

    def owners(self) -> dict[str, str]:
        """Return, for each file of the folder, the name of its target."""
        return {file: entry.name for entry in self.entries.values() for file in entry.files}

    def _add(self, *entries: ManifestEntry) -> None:
        known = self.entries
        outdated = [file for entry in entries if entry.name in known for file in known[entry.name].outdated_by(entry)]
        self._entries.update({entry.name: entry for entry in entries})
        if self._rewrite:
            prepare_folder(self.folder)
            head = _HEAD | ({"partition": self.partition} if self.partition else {})
            lines = [json.dumps(head), *(entry.line() for entry in self._entries.values())]
            atomic_write(self.path, "\n".join(lines) + "\n")
            self._rewrite = False
        else:
            self._append([entry.line() for entry in entries])
        self.ended = False
        for file in outdated:
            with contextlib.suppress(OSError):
                (self.folder / file).unlink()

    def _append(self, lines: list[str]) -> None:
        self._rewrite = True  # until the line is known to be complete
        append_lines(self.path, lines, "the manifest")
        self._rewrite = False

    def _read_line(self, line: bytes, number: int) -> None:
        """Read one line of the file."""
        try:
            document = parse_json(line)
            if number == 1:
                version = document["protquant_manifest"]
                self.partition = str(document.get("partition", ""))
            elif document.keys() == {"ended"}:
                self.ended = document["ended"] is True
            else:
                entry = ManifestEntry.of(document)
                self._entries[entry.name] = entry
                self.ended = False
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ProtquantError(
                f"{self.path}, line {number}: the manifest is damaged ({type(error).__name__}: {error}). "
                "Restore the file, or delete it to fold all targets anew."
            ) from error
        if number == 1 and version != _VERSION:
            raise ProtquantError(
                f"{self.path}: the manifest has version {version!r}, this protquant reads version {_VERSION}. "
                "Use the protquant that wrote it, or name another output folder."
            )
