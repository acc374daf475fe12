"""A log has a whole JSON line for every event, from the beginning to the end, whatever ends the run."""

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from protquant.cli import app
from protquant.errors import ProtquantError
from protquant.reporting import event_log as module
from protquant.reporting.event_log import event_log, log_event
from protquant.reporting.progress import note

Fold = Callable[..., list[dict[str, Any]]]


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def fold_logged(esmfold_checkpoint: Path, tmp_path: Path) -> Fold:
    """Fold a text by the command line, and return the events of the log."""

    def run(text: str, *options: str) -> list[dict[str, Any]]:
        (tmp_path / "in.fasta").write_text(text)
        words = ["fold", "-i", str(tmp_path / "in.fasta"), "-o", str(tmp_path / "out"), "-m", str(esmfold_checkpoint)]
        CliRunner().invoke(app, [*words, "--no-plots", "--log", str(tmp_path / "log.jsonl"), *options])
        return events(tmp_path / "log.jsonl")

    return run


def test_a_run_is_told_from_its_settings_to_its_counts_and_the_next_run_goes_on_below(fold_logged: Fold):
    text = ">a\nMKTAYIAKQR\n>bad\nMK-T\n>b\nGAVLI\n"
    first = fold_logged(text)
    assert (first[0]["event"], first[0]["command"], first[0]["arguments"]["dtype"]) == ("begin", "fold", "float32")
    assert {"version", "python", "machine", "process"} <= set(first[0])
    by_event: dict[str, list[dict[str, Any]]] = {}
    for each in first:
        by_event.setdefault(each["event"], []).append(each)
        told = datetime.fromisoformat(each["time"])
        assert told.utcoffset() == UTC.utcoffset(None)
        assert abs((datetime.now(UTC) - told).total_seconds()) < 60
    assert by_event["settings"][0]["num_recycles"] == 1
    assert by_event["pending"][0] | {"time": ""} == {
        "time": "", "level": "info", "event": "pending", "done": 0, "left": 2
    }  # fmt: skip
    assert {(each["target"], each["length"], each["batch"]) for each in by_event["done"]} == {("a", 10, 2), ("b", 5, 2)}
    assert all(each["seconds"] > 0 for each in by_event["done"])
    (failed,) = by_event["failed"]
    assert (failed["level"], failed["header"], failed["line"]) == ("error", "bad", 3)
    assert [(each["part"], each["done"], each["total"]) for each in by_event["progress"]][-1] == ("proteins", 2, 2)
    assert any(each["level"] == "warning" and "distorted backbone" in each["text"] for each in by_event["note"])
    end = by_event["end"][0]
    assert (end["status"], end["done"], end["failed"], end["level"]) == (1, 2, 1, "error")
    assert first[-1] == end

    both = fold_logged(text)
    assert both[: len(first)] == first
    assert [each["event"] for each in both].count("begin") == 2
    assert (both[-1]["event"], both[-1]["done"]) == ("end", 0)


def test_an_error_that_ends_a_run_is_in_the_log(fold_logged: Fold):
    told = fold_logged(">a\nMKT\n", "--num-recycles", "-1")
    assert [each["event"] for each in told] == ["begin", "error", "end"]
    assert "recycles is -1" in told[1]["text"]
    assert told[2]["status"] == 2


def test_the_environment_names_a_log_for_any_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROTQUANT_LOG", str(tmp_path / "log.jsonl"))
    assert CliRunner().invoke(app, ["formats"]).exit_code == 0
    assert [(each["event"], each.get("command")) for each in events(tmp_path / "log.jsonl")] == [
        ("begin", "formats"),
        ("end", None),
    ]


@pytest.mark.parametrize("path", ["no/such/folder/log.jsonl", "."])
def test_a_log_that_cannot_be_written_is_an_error_before_anything_else(tmp_path: Path, path: str):
    words = ["fold", "-i", "missing.fasta", "-o", str(tmp_path / "out"), "--log", str(tmp_path / path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "the file cannot be written" in result.output
    assert "loading" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_line_that_was_torn_when_a_run_was_killed_stays_alone(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "begin"}\n{"event": "no')
    with event_log(path):
        pass
    lines = path.read_text().splitlines()
    assert lines[:2] == ['{"event": "begin"}', '{"event": "no']
    assert [json.loads(line)["event"] for line in lines[2:]] == ["begin", "end"]


def test_notes_warnings_of_other_code_and_odd_values_are_logged(tmp_path: Path):
    with event_log(tmp_path / "log.jsonl", where=tmp_path):
        note("a\nnote \N{GREEK SMALL LETTER ALPHA} \udcff")
        logging.getLogger("protquant.somewhere").warning("low on %s", "memory")
    log_event("nobody listens any more")
    begin, first, second, _ = events(tmp_path / "log.jsonl")
    assert begin["where"] == str(tmp_path)
    assert first["text"] == "a\nnote \N{GREEK SMALL LETTER ALPHA} ?"
    assert (second["level"], second["text"]) == ("warning", "low on memory")


@pytest.mark.parametrize(
    ("error", "last", "status"),
    [(KeyboardInterrupt(), "interrupted", 130), (ZeroDivisionError("x"), "error", 1), (SystemExit(3), "error", 3)],
)
def test_whatever_ends_a_run_is_told(tmp_path: Path, error: BaseException, last: str, status: int):
    with pytest.raises(type(error)), event_log(tmp_path / "log.jsonl"):
        raise error
    told = events(tmp_path / "log.jsonl")
    assert [each["event"] for each in told] == ["begin", last, "end"]
    assert told[-1]["status"] == status


def test_a_full_disk_ends_the_log_with_a_word_and_not_the_run(tmp_path: Path, monkeypatch, capsys):
    def full(_file: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with event_log(tmp_path / "log.jsonl"):
        monkeypatch.setattr(module.os, "write", full)
        log_event("one")
        log_event("two")
    assert capsys.readouterr().err.count("WARNING: No space left on device; the run goes on") == 1


def test_a_log_inside_of_a_log_gives_it_back(tmp_path: Path):
    with event_log(tmp_path / "outer.jsonl"):
        with pytest.raises(ProtquantError), event_log(tmp_path / "no" / "log.jsonl"):
            pass
        with event_log(tmp_path / "inner.jsonl"):
            log_event("inside")
        log_event("outside")
    assert [each["event"] for each in events(tmp_path / "outer.jsonl")] == ["begin", "outside", "end"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes share weights on Linux only")
def test_lines_are_whole_with_workers_and_an_interruption_is_told(esmfold_checkpoint: Path, tmp_path: Path):
    fasta, log = tmp_path / "in.fasta", tmp_path / "log.jsonl"
    fasta.write_text("".join(f">p{k}\n{'MKTAYIAKQRQISFVKSHFSRQ' * 4}{'A' * (k % 40)}\n" for k in range(400)))
    command = [sys.executable, "-m", "protquant", "fold", "-i", str(fasta), "-o", str(tmp_path / "out"), "--no-plots"]
    command += ["-m", str(esmfold_checkpoint), "--max-tokens-per-batch", "0", "--workers", "2", "--log", str(log)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (log.exists() and '"event": "done"' in log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    told = events(log)
    assert [each["event"] for each in told][-2:] == ["interrupted", "end"]
    assert told[-1]["status"] == 130
    assert 0 < told[-1]["done"] < 400
