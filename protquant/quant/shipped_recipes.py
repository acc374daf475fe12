"""Recipe files that ship with the package; reading them does not import torch."""

from importlib.util import find_spec
from pathlib import Path

__all__ = ["available_recipes", "recipe_text"]


def available_recipes() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def recipe_text(name: str) -> str:
    """Return the YAML of one of `available_recipes`."""
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def _folder() -> Path:
    """Return the folder of recipes. Does not import `protquant.configs`, whose Hydra schemas need torch."""
    spec = find_spec("protquant.configs")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "quant"
