"""What a benchmark found: a table for people, and a document with every round for who wants to check it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from protquant.bench.contest import Standing
from protquant.files import atomic_write, json_value
from protquant.reporting.machine import Machine

__all__ = ["BenchReport", "Section"]


@dataclass(frozen=True)
class Section:
    """Contenders that did the same work.

    Attributes
    ----------
    title : str
        What the work was.
    baselines : tuple of str
        What contenders are compared with.
    facts : dict
        Sizes of the work, and what else must be known of it.
    """

    title: str
    standings: Sequence[Standing]
    baselines: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        memory = ["peak MiB"] if any(standing.memory for standing in self.standings) else []
        deviation = ["deviation"] if any(standing.deviation is not None for standing in self.standings) else []
        return ["contender", "median s", *(f"x {name}" for name in self.baselines), *memory, *deviation, "notes"]

    def rows(self) -> list[dict[str, Any]]:
        """One for each contender; `x NAME` is how many times as fast as that baseline, with the quartiles of rounds."""
        return [self._row(standing) for standing in self.standings]

    def _row(self, standing: Standing) -> dict[str, Any]:
        row: dict[str, Any] = {"contender": standing.name, "median s": standing.median_seconds}
        row["deviation"] = standing.deviation
        for name in self.baselines:
            ratio = standing.ratios.get(name)
            row[f"x {name}"] = None if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f} - {ratio.high:.2f})"
        if standing.memory is not None and standing.memory.bytes is not None:
            row["peak MiB"] = f"{standing.memory.bytes / 2**20:.0f}"
        row["notes"] = f"FAILED: {standing.error}" if standing.error else standing.notes
        return row


@dataclass(frozen=True)
class BenchReport:
    """All that a benchmark found.

    Attributes
    ----------
    kind : str
        `ops`, `trunk`, `lm` or `fold`.
    settings : dict
        What was asked for.
    """

    kind: str
    settings: Mapping[str, Any]
    machine: Machine
    sections: Sequence[Section]
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> list[Standing]:
        return [standing for section in self.sections for standing in section.standings if standing.error]

    def to_dict(self) -> dict[str, Any]:
        return {
            "benchmark": self.kind,
            "settings": dict(self.settings),
            "machine": self.machine.to_dict(),
            "notes": list(self.notes),
            "sections": [
                {
                    "title": section.title,
                    "baselines": list(section.baselines),
                    "facts": dict(section.facts),
                    "contenders": [
                        {**asdict(standing), "median_seconds": standing.median_seconds}
                        for standing in section.standings
                    ],
                }
                for section in self.sections
            ],
        }

    def write(self, path: Path) -> Path:
        """As JSON; the file appears whole or not at all."""
        return atomic_write(path, json.dumps(json_value(self.to_dict()), indent=1) + "\n")
