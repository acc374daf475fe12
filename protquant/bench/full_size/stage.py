"""A stage of the benchmark: a program in a process of its own, whose result is stored for later runs."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from protquant.bench.limited_process import ProcessOutcome, run_limited
from protquant.errors import ProtquantError
from protquant.files import atomic_write, fingerprint, json_value, prepare_folder
from protquant.reporting.machine import describe_machine

__all__ = ["Stage", "StageRecord", "kept_record", "run_stage"]

_OTHER_CHARACTERS = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Stage:
    """A program, and all settings that its result depends on.

    Attributes
    ----------
    name : str
    command : sequence of str
        Program that prints its result on standard output.
    settings : mapping
        Settings that determine the result: a stored result with other settings is not used.
    limit : int or None
        Memory limit in bytes.
    needs : int
        Bytes of memory that must be free before the start.
    reads : sequence of Path
        Folders whose files are first dropped from the system's cache, so that the process reads them from the disk.
    environment : mapping
        Variables that are added to the environment of this process.
    requests : sequence of dict
        Requests for a worker; empty for other programs, which print one JSON document.
    """

    name: str
    command: Sequence[str]
    settings: Mapping[str, Any]
    limit: int | None = None
    needs: int = 0
    reads: Sequence[Path] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    requests: Sequence[Mapping[str, Any]] = ()

    @property
    def fingerprint(self) -> str:
        return fingerprint({"name": self.name, "limit": self.limit, **self.settings})


@dataclass(frozen=True)
class StageRecord:
    """The result of a stage.

    Attributes
    ----------
    machine : dict
        Facts of the machine, revision of the source, and date at the start.
    load : float
        Load average in the minute before the start, which shows other work on the machine.
    outcome : ProcessOutcome or None
        End of the process; None if it was not started.
    result : dict or None
        Printed document; None if the stage failed.
    problem : str or None
        Reason why there is no result.
    """

    name: str
    fingerprint: str
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    load: float
    outcome: ProcessOutcome | None
    result: dict[str, Any] | None
    problem: str | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def write(self, folder: Path) -> None:
        """Store the record for later runs."""
        atomic_write(_path(folder, self.name), json.dumps(json_value(self.to_dict()), indent=1) + "\n")


def kept_record(stage: Stage, folder: Path) -> StageRecord | None:
    """Return the record of an earlier run with the same settings; None if there is none, or it failed.

    Raises
    ------
    ProtquantError
        If the file cannot be read.
    """
    path = _path(folder, stage.name)
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        kept["outcome"] = kept["outcome"] and ProcessOutcome(**kept["outcome"])
        record = StageRecord(**kept)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ProtquantError(f"{path}: cannot be read ({error}); delete it, and the stage is run again") from error
    return record if record.fingerprint == stage.fingerprint and record.problem is None else None


def run_stage(stage: Stage, folder: Path, say: Callable[[str], None]) -> StageRecord:
    """Run a stage, and store its record.

    Parameters
    ----------
    folder : Path
        Folder for records, and for files with standard output and standard error.
    say : callable
        Called with a line of text at the start and the end, and every half minute.
    """
    prepare_folder(folder)
    facts, load = (
        json_value(describe_machine().to_dict()),
        os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan"),
    )
    stem = _path(folder, stage.name)
    output, log = stem.with_suffix(".out"), stem.with_suffix(".log")
    limit = "" if stage.limit is None else f", within {stage.limit / 2**30:.3g} GiB"
    free = psutil.virtual_memory().available
    outcome, result, problem = None, None, None
    if free < stage.needs:
        problem = f"NOT RUN: it takes about {stage.needs / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} are free"
    else:
        say(f"{stage.name}: begins{limit}; {load:.1f} processes want the processors")
        for each in stage.reads:
            _put_out_of_cache(each)
        outcome = run_limited(
            stage.command,
            stage.limit,
            output=output,
            log=log,
            requests="".join(json.dumps(request) + "\n" for request in stage.requests) or None,
            environment={**os.environ, **stage.environment},
            watch=lambda seconds, peak: say(f"{stage.name}: {seconds:.0f} s, {_gib(peak)} at the peak so far"),
        )
        if stage.limit is not None and not outcome.enforced:
            say(f"{stage.name}: {outcome.how}")
        result, problem = _result(stage, outcome, output, log)
    record = StageRecord(stage.name, stage.fingerprint, stage.settings, facts, load, outcome, result, problem)
    record.write(folder)
    took = "" if outcome is None else f" after {outcome.seconds:.1f} s, {_gib(outcome.resident_peak)} at the peak"
    say(f"{stage.name}: {problem or 'done'}{took}")
    return record


def _result(stage: Stage, outcome: ProcessOutcome, output: Path, log: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Return the document that the program printed, or the reason why there is none."""
    if outcome.failed:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return None, f"{outcome}{f' ({lines[-1].strip()})' if lines and not outcome.over_limit else ''}"
    try:
        printed = output.read_text(encoding="utf-8")
        document = _fold_result(stage.requests, printed) if stage.requests else json.loads(printed)
    except ValueError as error:
        return None, f"FAILED: what it printed is no JSON document ({error}): {output}"
    return document, None


def _fold_result(requests: Sequence[Mapping[str, Any]], printed: str) -> dict[str, Any]:
    """Return the answers of a worker to the requests `build`, several `turn`, and `tell`.

    Returns
    -------
    dict
        The answer to `build`, `warm_up_seconds`, `folds`, and the candidate's own details. Each of `folds` has
        `residues seconds cpu_seconds all_seconds peak reserved coordinates`. `seconds` are of the last call, and
        `all_seconds` of all calls; `peak` is of resident memory, or of tensors on a GPU, where `reserved` is the memory
        that torch reserved.
    """
    built, *turns, details = (json.loads(line)["answer"] for line in printed.splitlines())
    warm_up_seconds, folds = None, []
    for request, turn in zip(requests[1:-1], turns, strict=True):
        if not request.get("memory"):
            warm_up_seconds = turn["seconds"][-1]
            continue
        folds.append(
            {
                "residues": len(request["arguments"]["sequence"]),
                "seconds": turn["seconds"][-1],
                "cpu_seconds": turn["cpu_seconds"],
                "all_seconds": turn["seconds"],
                **{name: size for name, size in turn["memory"].items() if name != "before"},
                "coordinates": turn["result"],
            }
        )
    return {**built, "warm_up_seconds": warm_up_seconds, "folds": folds, **details["details"]}


def _path(folder: Path, name: str) -> Path:
    return folder / f"{_OTHER_CHARACTERS.sub('-', name)}.json"


def _put_out_of_cache(folder: Path) -> None:
    """Drop files from the system's cache, so that the next process reads them from the disk."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # pages that are not on the disk yet cannot be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.2f} GiB"
