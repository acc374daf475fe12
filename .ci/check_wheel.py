"""Check an installed wheel against the repository that it was built from.

python .ci/check_wheel.py SITE REPOSITORY: every source and data file of the package is in SITE, nothing else is, and it
works from there.
"""

import sys
from importlib import import_module, resources
from pathlib import Path

from protquant.quant import available_recipes
from protquant.structures import load_references

PLACES = {"protquant": "protquant", "configs": "protquant/configs", "kernels": "protquant/kernels"}
PLACES["structures"] = "protquant/structures"


def files(folder: Path) -> set[str]:
    """Return the paths of all files below `folder`, without what Python leaves behind."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if "__pycache__" not in path.parts}


def main() -> None:
    """Compare, import, read; raise where something is wrong."""
    site, repository = (Path(argument).resolve() for argument in sys.argv[1:])
    expected = {f"{place}/{name}" for source, place in PLACES.items() for name in files(repository / source)}
    installed = {f"protquant/{name}" for name in files(site / "protquant")}
    if expected != installed:
        raise SystemExit(f"missing: {sorted(expected - installed)}\nsurplus: {sorted(installed - expected)}")
    others = {entry.name for entry in site.iterdir()} - {"protquant", "bin", "__pycache__"}
    if not all(name.startswith("protquant-") and name.endswith(".dist-info") for name in others):
        raise SystemExit(f"installed beside protquant: {sorted(others)}")
    for name in ("protquant", "protquant.configs", "protquant.kernels", "protquant.structures"):
        path = Path(str(import_module(name).__file__))
        if not path.is_relative_to(site):
            raise SystemExit(f"{name} comes from {path}")
    if not (resources.files("protquant") / "py.typed").is_file():
        raise SystemExit("py.typed is missing")
    sys.stdout.write(f"{len(installed)} files; {len(load_references())} structures; {', '.join(available_recipes())}\n")


if __name__ == "__main__":
    main()
