"""A stage runs once, and again only if it failed, was killed, or depends on something else now."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from protquant.bench.full_size.stage import Stage, kept_record, run_stage
from protquant.errors import ProtquantError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are waited for as POSIX lets them")


def stage(code: str, **settings) -> Stage:
    return Stage("quantize a-1.5", [sys.executable, "-S", "-c", code], settings)


def test_what_it_printed_is_kept_and_found_again(tmp_path: Path):
    said: list[str] = []
    asked = stage("print('{\"bytes\": 7}')", recipe="a", seed=0)
    assert kept_record(asked, tmp_path) is None
    record = run_stage(asked, tmp_path, said.append)
    assert (record.result, record.problem) == ({"bytes": 7}, None)
    kept = kept_record(asked, tmp_path)
    assert kept == record
    assert kept.machine["date"] and kept.load >= 0
    assert said[0].startswith("quantize a-1.5: begins; ")
    assert said[-1].startswith("quantize a-1.5: done after ")


def test_it_does_not_stand_when_settings_or_the_limit_differ(tmp_path: Path):
    asked = stage("print('{}')", recipe="a")
    run_stage(asked, tmp_path, lambda _: None)
    assert kept_record(stage("print('{}')", recipe="b"), tmp_path) is None
    assert kept_record(replace(asked, limit=2**33), tmp_path) is None
    assert kept_record(replace(asked, command=["another"]), tmp_path) is not None  # paths do not matter


def test_a_failure_is_told_and_does_not_stand(tmp_path: Path):
    asked = stage("import sys; print('{}'); sys.stderr.write('warning\\nno such recipe\\n'); sys.exit(2)")
    record = run_stage(asked, tmp_path, lambda _: None)
    assert (record.result, record.problem) == (None, "FAILED with exit code 2 (no such recipe)")
    assert kept_record(asked, tmp_path) is None


def test_what_is_no_document_is_told(tmp_path: Path):
    record = run_stage(stage("print('done')"), tmp_path, lambda _: None)
    assert record.problem.startswith("FAILED: what it printed is no JSON document")


def test_it_is_not_started_where_too_little_memory_is_free(tmp_path: Path):
    asked = replace(stage(f"open({str(tmp_path / 'ran')!r}, 'w')"), needs=2**60)
    record = run_stage(asked, tmp_path, lambda _: None)
    assert record.problem.startswith("NOT RUN: it takes about 1073741824.0 GiB of memory, and ")
    assert record.outcome is None
    assert not (tmp_path / "ran").exists()
    assert kept_record(asked, tmp_path) is None


def test_a_damaged_record_is_named(tmp_path: Path):
    asked = stage("print('{}')")
    run_stage(asked, tmp_path, lambda _: None)
    path = tmp_path / "quantize-a-1.5.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ProtquantError, match=r"quantize-a-1\.5\.json: cannot be read .*; delete it"):
        kept_record(asked, tmp_path)
    path.write_text(json.dumps({"outcome": None}))
    with pytest.raises(ProtquantError, match="delete it"):
        kept_record(asked, tmp_path)


def test_files_are_read_anew_and_left_as_they_are(tmp_path: Path):
    (tmp_path / "model").mkdir()
    weights = tmp_path / "model" / "weights"
    weights.write_bytes(b"x" * 2**20)
    code = f"print(len(open({str(weights)!r}, 'rb').read()))"
    record = run_stage(replace(stage(code), reads=(tmp_path / "model",)), tmp_path / "records", lambda _: None)
    assert record.result == 2**20
