"""The record of a run."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protquant.errors import ProtquantError
from protquant.files import MANIFEST_NAME, Manifest, atomic_write, fingerprint

PRINT = fingerprint({"recipe": "fp32"})
ROW = {"length": 3, "ptm": 0.5}


def finish(manifest: Manifest, name: str, content: str = "atoms", settings: str = PRINT) -> None:
    files = [atomic_write(manifest.folder / f"{name}{suffix}", content + suffix) for suffix in (".pdb", ".cif")]
    manifest.record(name, f"{name} the header", settings, files, ROW)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    manifest = Manifest.load(tmp_path)
    finish(manifest, "a")
    finish(manifest, "b")
    return manifest


def test_what_is_done_is_known_to_the_next_run(manifest: Manifest) -> None:
    loaded = Manifest.load(manifest.folder)
    assert loaded.entries == manifest.entries
    assert loaded.is_done("a", PRINT)
    assert loaded.rows() == [ROW, ROW]
    assert set(loaded.entries["a"].files) == {"a.pdb", "a.cif"}


def test_a_new_folder_has_nothing_done(tmp_path: Path) -> None:
    manifest = Manifest.load(tmp_path / "none")
    assert not manifest.is_done("a", PRINT)
    assert not (tmp_path / "none").exists()


def test_other_settings_are_not_done(manifest: Manifest) -> None:
    assert not manifest.is_done("a", fingerprint({"recipe": "w8"}))


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text(""),
        lambda path: path.write_text(path.read_text()[::-1]),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["gone", "emptied", "changed at the same size", "a folder"],
)
def test_a_target_whose_file_was_harmed_is_not_done(manifest: Manifest, harm: Callable[[Path], None]) -> None:
    harm(manifest.folder / "a.cif")
    assert not Manifest.load(manifest.folder).is_done("a", PRINT)
    assert Manifest.load(manifest.folder).is_done("b", PRINT)


def test_an_interruption_between_two_files_leaves_the_target_undone(manifest: Manifest) -> None:
    atomic_write(manifest.folder / "a.pdb", "other settings")
    loaded = Manifest.load(manifest.folder)
    assert not loaded.is_done("a", PRINT)
    finish(loaded, "a")
    assert Manifest.load(manifest.folder).is_done("a", PRINT)


def test_a_failure_is_kept_with_its_reason_and_tried_again(manifest: Manifest) -> None:
    manifest.record_failure("a", "a the header", PRINT, "out of memory at 900 residues")
    loaded = Manifest.load(manifest.folder)
    assert not loaded.is_done("a", PRINT)
    assert [(entry.name, entry.error) for entry in loaded.failures()] == [("a", "out of memory at 900 residues")]
    finish(loaded, "a")
    assert Manifest.load(manifest.folder).failures() == []


def test_a_cut_last_line_costs_one_target_only(manifest: Manifest) -> None:
    whole = manifest.path.read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    for end in range(last, len(whole) + 1):
        manifest.path.write_bytes(whole[:end])
        loaded = Manifest.load(manifest.folder)
        assert loaded.is_done("a", PRINT)
        assert loaded.is_done("b", PRINT) == (end >= len(whole) - 1)
    manifest.path.write_bytes(whole[:-20])
    loaded = Manifest.load(manifest.folder)
    finish(loaded, "c")
    assert list(Manifest.load(manifest.folder).entries) == ["a", "c"]


def test_a_full_disk_is_told_and_the_next_record_mends_the_file(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(ProtquantError, match=r"manifest cannot be written \(No space left on device\)"):
            manifest.record_failure("c", "c", PRINT, "why")
    with manifest.path.open("ab") as stream:
        stream.write(b'{"name": "half')
    finish(manifest, "d")
    assert list(Manifest.load(manifest.folder).entries) == ["a", "b", "c", "d"]


def test_adding_a_target_does_not_rewrite_the_others(manifest: Manifest) -> None:
    before = manifest.path.read_bytes()
    finish(manifest, "c")
    assert manifest.path.read_bytes().startswith(before)
    inode = manifest.path.stat().st_ino
    finish(manifest, "d")
    assert manifest.path.stat().st_ino == inode


def test_numbers_that_are_not_finite_become_null(manifest: Manifest) -> None:
    manifest.record("n", "n", PRINT, [], {"ptm": float("nan")})
    assert Manifest.load(manifest.folder).entries["n"].row == {"ptm": None}


def test_names_of_files_below_the_folder_are_relative(manifest: Manifest) -> None:
    (manifest.folder / "sub").mkdir()
    path = atomic_write(manifest.folder / "sub" / "x.pdb", "x")
    assert set(manifest.record("x", "x", PRINT, [path], {}).files) == {"sub/x.pdb"}
    assert Manifest.load(manifest.folder).is_done("x", PRINT)


@pytest.mark.parametrize(
    ("line", "text"),
    [(1, "{"), (1, '{"a": 1}'), (2, "null"), (2, '{"name": 1}'), (2, ""), (2, '{"name": "a", "header": "a"}')],
)
def test_a_damaged_manifest_names_file_line_and_remedy(manifest: Manifest, line: int, text: str) -> None:
    lines = manifest.path.read_text().splitlines()
    lines[line - 1] = text
    manifest.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ProtquantError) as caught:
        Manifest.load(manifest.folder)
    assert str(caught.value).startswith(f"{manifest.path}, line {line}: the manifest is damaged")
    assert "delete it" in str(caught.value)


@pytest.mark.parametrize("content", ["", "garbage", "[]"])
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(content)
    with pytest.raises(ProtquantError, match="line 1: the manifest is damaged"):
        Manifest.load(tmp_path)


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text('{"protquant_manifest": 2}\n{"other": "form"}\n')
    with pytest.raises(ProtquantError, match="version 2, this protquant reads version 1"):
        Manifest.load(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
KEYS = ["name", "header", "fingerprint", "status", "files", "error", "row"]


@given(st.binary(max_size=40) | st.dictionaries(st.sampled_from(KEYS), JSON).map(lambda d: json.dumps(d).encode()))
def test_any_line_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, line: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / MANIFEST_NAME).write_bytes(b'{"protquant_manifest": 1}\n' + line + b"\n")
    try:
        Manifest.load(folder)
    except ProtquantError as error:
        message = str(error)
    else:
        return
    assert str(folder / MANIFEST_NAME) in message


def test_targets_that_were_folded_together_are_recorded_together_or_not_at_all(tmp_path: Path):
    manifest = Manifest.load(tmp_path)
    with manifest.together():
        finish(manifest, "a")
        assert Manifest.load(tmp_path).entries == {}
        finish(manifest, "b")
    assert list(Manifest.load(tmp_path).entries) == ["a", "b"]
    with contextlib.suppress(KeyboardInterrupt), manifest.together():
        finish(manifest, "c")
        raise KeyboardInterrupt
    assert list(Manifest.load(tmp_path).entries) == list(manifest.entries) == ["a", "b"]
    finish(manifest, "d")
    assert list(Manifest.load(tmp_path).entries) == ["a", "b", "d"]
