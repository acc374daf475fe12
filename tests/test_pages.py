"""What the pages name is there: files of the repository, pages that are linked, functions of the package."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "protquant").rglob("*.md")]
_PATH = re.compile(r"`((?:protquant|kernels|structures|configs|tests|docs|notebooks)/[\w./-]*[\w/])`")
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_are_there(page: Path):
    text = page.read_text(encoding="utf-8")
    assert [name for name in _PATH.findall(text) if not (ROOT / name).exists()] == []
    assert [name for name in _LINK.findall(text) if not (page.parent / name).exists()] == []
