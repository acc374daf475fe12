"""The README and the docs are finished, and name recipes that ship; what else they name: `test_pages.py`."""

import re
from pathlib import Path

import pytest

from protquant.quant import available_recipes

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "protquant" / "demo" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_nothing_is_left_to_be_filled_in(page: Path):
    assert "<!--" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_recipes_that_are_named_ship(page: Path):
    named = re.findall(r"(?:\s-q |--quant |\bquant=)(\w[\w,.-]*)", page.read_text(encoding="utf-8"))
    recipes = {name for names in named for name in names.split(",") if not name.endswith(".yaml")}
    assert recipes <= set(available_recipes())
