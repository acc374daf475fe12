"""Stored facts on shipped recipes and formats, which can be printed without importing torch.

`make_datasheets.py` computes them, and a test checks them.
"""

import hashlib
import json
from importlib import resources
from typing import Any

from protquant import integer, measuring, quant
from protquant.options import FormatsOptions, takes
from protquant.quant.shipped_recipes import available_recipes, recipe_text

__all__ = ["DATA", "FORMATS", "RECIPES", "describe_recipe", "list_formats", "list_recipes", "text_fingerprint"]

DATA = resources.files("protquant.measuring") / "data"
RECIPES, FORMATS = "recipes.json", "formats.json"


def list_recipes() -> list[dict[str, Any]]:
    """Describe every recipe that ships.

    If a recipe file has changed since the facts were stored, they are computed now, which imports torch.

    Returns
    -------
    list of dict
        See `describe_recipe`.
    """
    stored = json.loads((DATA / RECIPES).read_text(encoding="utf-8"))
    rows = []
    for name in available_recipes():
        entry = stored.get(name, {})
        known = entry.get("fingerprint") == text_fingerprint(recipe_text(name))
        rows.append(entry["row"] if known else describe_recipe(name))
    return rows


def describe_recipe(name: str) -> dict[str, Any]:
    """Read a recipe, and check whether integer kernels can run it.

    Returns
    -------
    dict
        `recipe description execution integer why_not_integer`; the last is None where `integer` is true.
    """
    recipe = quant.load_recipe(name)
    claim = integer.integer_claim(recipe)
    return {
        "recipe": name,
        "description": recipe.description,
        "execution": recipe.execution,
        "integer": claim.claimed,
        "why_not_integer": claim.reason or None,
    }


@takes(FormatsOptions)
def list_formats(options: FormatsOptions) -> list[dict[str, Any]]:
    """Describe every number format.

    Returns
    -------
    list of dict
        See `protquant.measuring.format_table`.
    """
    return measuring.format_table() if options.measure else json.loads((DATA / FORMATS).read_text(encoding="utf-8"))


def text_fingerprint(text: str) -> str:
    """Return the SHA-256 of a text, independent of its line endings."""
    return hashlib.sha256("\n".join(text.splitlines()).encode()).hexdigest()
