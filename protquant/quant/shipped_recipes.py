"""The recipes that ship with the package, as files: reading them takes no torch."""

from importlib.util import find_spec
from pathlib import Path

__all__ = ["available_recipes", "recipe_text"]


def available_recipes() -> list[str]:
    """Names of the recipes that the package ships."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def recipe_text(name: str) -> str:
    """Return the YAML of one of `available_recipes`."""
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def _folder() -> Path:
    """Where the recipes lie; the package `protquant.configs` is not imported, since its schemas of Hydra need torch."""
    spec = find_spec("protquant.configs")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "quant"
