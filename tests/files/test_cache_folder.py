"""What is kept between runs lies where the user wants it, or nowhere."""

from pathlib import Path

import pytest

from protquant.files.cache_folder import cache_folder


def test_the_folder_is_the_users_to_choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROTQUANT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("PROTQUANT_CACHE", "off")
    assert cache_folder() is None
    monkeypatch.delenv("PROTQUANT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "protquant"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "protquant"
