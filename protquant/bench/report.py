"""The results of a benchmark: a table for people, and a document with the times of every round."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protquant.bench.paired_benchmark import Result
from protquant.bench.worker_process import allocator_variables
from protquant.files import atomic_write, json_value
from protquant.reporting.machine import Machine

__all__ = ["RATIO_NOTE", "BenchReport", "Section", "allocator_note"]

RATIO_NOTE = "x: how many times as fast, the median of ratios round by round (quartiles)."


@dataclass(frozen=True)
class Section:
    """Candidates that did the same work.

    Attributes
    ----------
    title : str
        Description of the work.
    baselines : tuple of str
        Names of the candidates that the others are compared with.
    facts : dict
        Sizes of the work, and other facts.
    """

    title: str
    results: Sequence[Result]
    baselines: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        memory = ["peak MiB"] if any(result.memory for result in self.results) else []
        deviation = ["deviation"] if any(result.deviation is not None for result in self.results) else []
        return ["contender", "median s", *(f"x {name}" for name in self.baselines), *memory, *deviation, "notes"]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each candidate; `x NAME` is its speed relative to that baseline."""
        return [self._row(result) for result in self.results]

    def _row(self, result: Result) -> dict[str, Any]:
        row: dict[str, Any] = {"contender": result.name, "median s": result.median_seconds}
        row["deviation"] = result.deviation
        for name in self.baselines:
            ratio = result.ratios.get(name)
            row[f"x {name}"] = None if ratio is None else str(ratio)
        if result.memory is not None and result.memory.bytes is not None:
            row["peak MiB"] = f"{result.memory.bytes / 2**20:.0f}"
        row["notes"] = f"FAILED: {result.error}" if result.error else result.notes
        return row


@dataclass(frozen=True)
class BenchReport:
    """All results of a benchmark.

    Attributes
    ----------
    kind : str
        `ops`, `trunk`, `lm` or `fold`.
    settings : dict
        Arguments of the benchmark.
    """

    kind: str
    settings: Mapping[str, Any]
    machine: Machine
    sections: Sequence[Section]
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> list[Result]:
        return [result for section in self.sections for result in section.results if result.error]

    def lines(self) -> list[str]:
        """Return lines to print below the tables."""
        return [*self.notes, *allocator_note(), str(self.machine)]

    def to_dict(self) -> dict[str, Any]:
        return {
            "benchmark": self.kind,
            "settings": {**self.settings, "allocator": allocator_variables()},
            "machine": self.machine.to_dict(),
            "notes": list(self.notes),
            "sections": [
                {
                    "title": section.title,
                    "baselines": list(section.baselines),
                    "facts": dict(section.facts),
                    "contenders": [result.to_dict() for result in section.results],
                }
                for section in self.sections
            ],
        }

    def write(self, path: Path) -> Path:
        """Write the report as JSON; the file appears complete or not at all."""
        return atomic_write(path, json.dumps(json_value(self.to_dict()), indent=1) + "\n")


def allocator_note() -> list[str]:
    """Return a line on environment variables that change how memory is allocated; no line if none is set."""
    return [f"memory is allocated with {name}={value}" for name, value in allocator_variables().items()]
