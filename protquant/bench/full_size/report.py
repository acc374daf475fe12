"""The results at full size: tables for people, and a document with the data of every process."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from protquant.bench.full_size.claims import Claim, claims_of
from protquant.bench.full_size.plan import Fold, Plan, Preparation
from protquant.bench.full_size.stage import StageRecord
from protquant.bench.paired_benchmark import Ratio
from protquant.bench.worker_process import allocator_variables
from protquant.files import atomic_write, json_value
from protquant.reporting.machine import Machine
from protquant.scores import rmsd_ca

__all__ = ["FullSizeReport", "Turns"]

_GIB = 2**30
_BASELINES = ("transformers-float32", "transformers-bfloat16")


@dataclass(frozen=True)
class Turns:
    """The timed stages of one candidate, round by round."""

    candidate: str
    records: Sequence[StageRecord]

    @property
    def problem(self) -> str | None:
        return next((record.problem for record in self.records if record.problem), None)

    @property
    def sound(self) -> bool:
        return bool(self.records) and self.problem is None

    def folds(self, residues: int) -> list[dict[str, Any]]:
        """Return the folds of one protein, one for each round."""
        results = [record.result for record in self.records if record.result is not None]
        return [fold for result in results for fold in result["folds"] if fold["residues"] == residues]

    def seconds(self, residues: int) -> list[float]:
        return [fold["seconds"] for fold in self.folds(residues)]

    def of_results(self, name: str) -> list[Any]:
        return [record.result[name] for record in self.records if record.result is not None]


@dataclass(frozen=True)
class FullSizeReport:
    """All results.

    Attributes
    ----------
    settings : dict
        Arguments of the benchmark.
    preparations, folds : list of (asked, record)
        Stages of the plan with their results, of this run or of an earlier one.
    turns : list of Turns
        Timed stages, one entry for each candidate.
    skipped : tuple of str
        Stages that did not run, with the reasons.
    """

    settings: Mapping[str, Any]
    machine: Machine
    plan: Plan
    preparations: Sequence[tuple[Preparation, StageRecord]]
    folds: Sequence[tuple[Fold, StageRecord]]
    turns: Sequence[Turns]
    skipped: tuple[str, ...] = ()

    @property
    def records(self) -> list[StageRecord]:
        turns = [record for turn in self.turns for record in turn.records]
        return [record for _, record in (*self.preparations, *self.folds)] + turns

    @property
    def failed(self) -> list[StageRecord]:
        return [record for record in self.records if record.problem]

    def tables(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Return titles and rows of tables; the rows are measured stages only."""
        recycles = self.settings["num_recycles"]
        if self.preparations:
            yield "quantize", [_preparation_row(asked, record) for asked, record in self.preparations]
        if self.folds:
            title = f"load and fold one protein, {recycles} recycles, files not in the system's cache"
            yield title, [_fold_row(asked, record) for asked, record in self.folds]
        for length in self.plan.lengths if self.turns else ():
            yield f"{length} residues, {recycles} recycles, by turns", self._turn_rows(length)
        yield "claims", [claim.row() for claim in self.claims]

    def notes(self) -> list[str]:
        """Return lines to print below the tables."""
        lines = list(self.skipped)
        outcomes = [record.outcome for record in self.records if record.outcome is not None]
        reasons = {each.how for each in outcomes if each.limit is not None and not each.enforced}
        lines += [f"LIMITS WERE NOT ENFORCED: {reason}" for reason in sorted(reasons)]
        for fact in ("revision", "cpu"):
            if len(found := sorted({str(record.machine[fact]) for record in self.records})) > 1:
                lines.append(f"NOT ALIKE: {fact} of stages: {', '.join(found)}")
        lines += self._losses()
        return lines

    @cached_property
    def claims(self) -> list[Claim]:
        """Return a claim for every bound of the plan."""
        return list(claims_of(self.plan, self.preparations, self.folds))

    def faster_baseline(self, residues: int) -> Turns | None:
        """Return the faster setting of transformers; None if none was measured."""
        sound = [turn for turn in self.turns if turn.candidate in _BASELINES and turn.sound and turn.folds(residues)]
        return min(sound, key=lambda turn: median(turn.seconds(residues)), default=None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "benchmark": "full-size",
            "settings": {**self.settings, "allocator": allocator_variables()},
            "machine": self.machine.to_dict(),
            "plan": asdict(self.plan),
            "notes": self.notes(),
            "tables": dict(self.tables()),
            "stages": [_for_document(record.to_dict()) for record in self.records],
        }

    def write(self, path: Path) -> Path:
        """Write the report as JSON; the file appears complete or not at all."""
        return atomic_write(path, json.dumps(json_value(self.to_dict()), indent=1) + "\n")

    def _turn_rows(self, length: int) -> list[dict[str, Any]]:
        reference = next((turn for turn in self.turns if turn.candidate == _BASELINES[0] and turn.folds(length)), None)
        return [self._turn_row(turn, length, reference) for turn in self.turns]

    def _turn_row(self, turn: Turns, length: int, reference: Turns | None) -> dict[str, Any]:
        folds = turn.folds(length)
        row: dict[str, Any] = {"contender": turn.candidate, "rounds": str(len(folds))}
        row["load s"] = median(turn.of_results("load_seconds")) if folds else None
        row["fold s"] = median(turn.seconds(length)) if folds else None
        for name in _BASELINES:
            ratio = self._ratio(name, turn, length)
            row[f"x {name}"] = None if ratio is None else str(ratio)
        peaks = [fold["peak"] for fold in folds if fold["peak"] is not None]
        row["peak GiB"] = max(peaks) / _GIB if peaks else None
        row["RMSD"] = _rmsd(folds[0], reference.folds(length)[0]) if folds and reference else None
        shares = [fold["cpu_seconds"] / fold["seconds"] / self.settings["threads"] for fold in folds]
        row["share of cores"] = f"{median(shares):.0%}" if shares else None
        row["notes"] = turn.problem or ""
        return row

    def _ratio(self, baseline: str, turn: Turns, length: int) -> Ratio | None:
        """Return the ratio of times, over the rounds that both have finished."""
        other = next((each for each in self.turns if each.candidate == baseline), None)
        if other is None or not (turn.sound and other.sound):
            return None
        theirs, ours = other.seconds(length), turn.seconds(length)
        rounds = min(len(theirs), len(ours))
        return Ratio.of(theirs[:rounds], ours[:rounds]) if rounds else None

    def _losses(self) -> Iterator[str]:
        for length in self.plan.lengths:
            faster = self.faster_baseline(length)
            if faster is None:
                continue
            yield f"{length} residues: the faster setting of transformers is {faster.candidate}"
            for turn in self.turns:
                ratio = self._ratio(faster.candidate, turn, length)
                if turn.candidate not in _BASELINES and ratio is not None and ratio.median < 1:
                    slower = f"{turn.candidate} is {ratio.median:.2f} times as fast as {faster.candidate}"
                    yield f"LOSS: {slower} at {length} residues"


def _preparation_row(asked: Preparation, record: StageRecord) -> dict[str, Any]:
    result = record.result or {}
    disk = result.get("bytes_on_disk")
    return {"recipe": asked.recipe, **_process(record), "GB on disk": None if disk is None else disk / 1e9}


def _fold_row(asked: Fold, record: StageRecord) -> dict[str, Any]:
    row: dict[str, Any] = {"recipe": asked.recipe, "residues": str(asked.residues), **_process(record)}
    loaded = record.result["loaded"] if record.result else {"resident": None, "anonymous": None}
    row["load s"] = record.result["load_seconds"] if record.result else None
    row["loaded GiB"] = _gib(loaded["resident"])
    row["of it allocated"] = _gib(loaded["anonymous"])
    row["fold s"] = record.result["folds"][0]["seconds"] if record.result else None
    return row


def _process(record: StageRecord) -> dict[str, Any]:
    outcome = record.outcome
    return {
        "limit": "-" if outcome is None else outcome.limit_text,
        "outcome": record.problem or "done",
        "s": None if outcome is None else outcome.seconds,
        "peak GiB": None if outcome is None else _gib(outcome.resident_peak),
        "peak allocated": None if outcome is None else _gib(outcome.anonymous_peak),
    }


def _rmsd(fold: Mapping[str, Any], reference: Mapping[str, Any]) -> float | None:
    if fold is reference:
        return None
    return rmsd_ca(np.asarray(fold["coordinates"]), np.asarray(reference["coordinates"]))


def _gib(size: int | None) -> float | None:
    return None if size is None else size / _GIB


def _for_document(record: dict[str, Any]) -> dict[str, Any]:
    """Return data without sequences and coordinates, which are large, and without facts of the whole document."""
    result, settings = record["result"], dict(record["settings"])
    settings.pop("sequences", None)
    if result is not None and "folds" in result:
        folds = [{name: value for name, value in fold.items() if name != "coordinates"} for fold in result["folds"]]
        result = {**result, "folds": folds}
    if result is not None:  # The document may be published, so it has no folders of this machine.
        result |= {name: Path(result[name]).name for name in ("model", "output") if name in result}
    machine = {name: record["machine"][name] for name in ("cpu", "revision", "date")}
    return {**record, "settings": settings, "result": result, "machine": machine}
