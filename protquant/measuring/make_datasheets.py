"""Compute the facts of recipes and formats that `protquant recipes` and `protquant formats` print, and store them.

    python -m protquant.measuring.make_datasheets

Run it after a change of a recipe, of a format, or of what integer kernels can run.
"""

import json
from pathlib import Path

from protquant.measuring.datasheets import FORMATS, RECIPES, describe_recipe, text_fingerprint
from protquant.measuring.format_table import format_table
from protquant.quant.shipped_recipes import available_recipes, recipe_text


def main() -> None:
    """Write both files into the folder of this module."""
    folder = Path(__file__).parent / "data"
    folder.mkdir(exist_ok=True)
    recipes = {
        name: {"fingerprint": text_fingerprint(recipe_text(name)), "row": describe_recipe(name)}
        for name in available_recipes()
    }
    for file, document in ((RECIPES, recipes), (FORMATS, format_table())):
        (folder / file).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(folder / file)


if __name__ == "__main__":
    main()
