"""The record of a run that lets the next run skip what is done.

A target is done when the manifest says so for the same settings and its files are what was written then; a file that
merely exists proves nothing. The manifest is a text file of one JSON object a line, `manifest.jsonl`: a first line with
the version, then one line for each target that was done or failed, the last line of a name being the valid one. A line
is added in one write after the target's files are complete, so an interruption leaves at worst a cut last line, which
is dropped and its target folded again. Lines of targets that were folded together are added together (`together`), so
that after an interruption the same targets are folded together as without one, and come out the same. The last line of
a shard says that it came to its end.

The manifest is more than a `RunStore`: it lists and checks the output files of each target, users and `merge` read it,
and each target has one valid entry by its name, whatever its settings were. Both are files of JSON lines
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
    """The targets done and failed in one output folder. One process at a time writes it.

    Parameters
    ----------
    folder : Path
        The output folder.
    entries : mapping of str to ManifestEntry, optional
        What is known, by name. Use `Manifest.load` to read it from the folder.
    part : str
        Label of a shard, which has a manifest of its own; empty for the manifest of the whole.

    Attributes
    ----------
    partition : str
        What a shard is a shard of.
    ended : bool
        Whether the last run of a shard came to its end (`end`), and none has folded since.
    """

    def __init__(self, folder: Path, entries: Mapping[str, ManifestEntry] | None = None, part: str = "") -> None:
        self.folder, self.part, self.partition = folder, part, ""
        self.ended = False
        self._entries = dict(entries or {})
        self._of_whole: dict[str, ManifestEntry] = {}
        # The file does not end where an entry ends (it is new, or a write was cut): the next write replaces it.
        self._rewrite = True
        self._held: list[ManifestEntry] | None = None

    @property
    def path(self) -> Path:
        """The manifest's file."""
        return self.folder / (f"manifest.{self.part}.jsonl" if self.part else MANIFEST_NAME)

    @property
    def entries(self) -> dict[str, ManifestEntry]:
        """The valid entry of each target by name, in the order in which the targets were first recorded.

        A shard also knows what the manifest of the whole says.
        """
        return self._of_whole | self._entries

    @property
    def own_entries(self) -> dict[str, ManifestEntry]:
        """As `entries`, without those that only the manifest of the whole has."""
        return dict(self._entries)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], part: str = "") -> "Manifest":
        """Read the manifest of a folder; a folder without one (or that does not exist yet) has nothing done.

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
        if lines and tail:  # an entry whose writing was interrupted, if it is not just the line end that is missing
            with contextlib.suppress(ProtquantError):
                manifest._read_line(tail, len(lines) + 1)
        manifest._rewrite = bool(tail)
        return manifest

    @classmethod
    def partition_of(cls, folder: Path, part: str) -> str:
        """Return what a shard is a shard of, of which only the first line of its manifest is read.

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
        """Whether a target was done with these settings and its files are still what was written."""
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
        """Note that a target is done. Call it when all its files are complete.

        Files that it had by the same settings, in another layout, stay files of it. Those that it had by other settings
        and has no more are removed: they would pass for files of this prediction.

        Parameters
        ----------
        name, header : str
            Stem of its files, and its header in the FASTA file.
        fingerprint : str
            Of the settings, see `fingerprint`.
        files : iterable of path
            Its files, inside the manifest's folder.
        row : mapping of str to value
            Its row in the table of results; numbers that are not finite become null.

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
            kept = {path: file for path, file in known.files.items() if path not in written}
            written |= {path: file for path, file in kept.items() if file.matches(self.folder / path)}
        return self._note(ManifestEntry(name, header, fingerprint, "done", written, None, json_value(row)))

    def record_failure(
        self, name: str, header: str, fingerprint: str, error: str, row: Mapping[str, Any] | None = None
    ) -> ManifestEntry:
        """Note that a target failed, and why; it is tried again in the next run.

        Raises
        ------
        ProtquantError
            If the manifest cannot be written.
        """
        return self._note(ManifestEntry(name, header, fingerprint, "failed", {}, error, json_value(row or {})))

    def begin(self, partition: str = "") -> None:
        """Write the file if it is not there: a shard with nothing to record has begun, too.

        Parameters
        ----------
        partition : str
            What the shards are shards of; kept in the file.

        Raises
        ------
        ProtquantError
            If it cannot be written.
        """
        if not self.path.exists():
            self.partition = partition
            self._add()

    def end(self) -> None:
        """Note that the run of a shard came to its end: every target of it is done, or has failed.

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
        """Note that a shard goes on: until `end`, its files may be newer than what is recorded of them.

        Raises
        ------
        ProtquantError
            If the manifest cannot be written.
        """
        if self.ended:
            self._append([json.dumps({"ended": False})])
        self.ended = False

    def take(self, entry: ManifestEntry) -> ManifestEntry:
        """Note what another manifest of the folder says of a target.

        Raises
        ------
        ProtquantError
            If the manifest cannot be written.
        """
        return self._note(entry)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Add the targets that are recorded meanwhile at the end, in one write; none of them if an error comes between.

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
        """The rows of the targets that are done."""
        return [dict(entry.row) for entry in self._entries.values() if entry.status == "done"]

    def failures(self) -> list[ManifestEntry]:
        """The entries of the targets that failed."""
        return [entry for entry in self._entries.values() if entry.status == "failed"]

    def _note(self, entry: ManifestEntry) -> ManifestEntry:
        if self._held is None:
            self._add(entry)
        else:
            self._held.append(entry)
        return entry

    def owners(self) -> dict[str, str]:
        """Name of the target that each file of the folder belongs to."""
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
                "Restore the file, or delete it: the targets are then folded again."
            ) from error
        if number == 1 and version != _VERSION:
            raise ProtquantError(
                f"{self.path}: the manifest has version {version!r}, this protquant reads version {_VERSION}. "
                "Use the protquant that wrote it, or name another output folder."
            )
