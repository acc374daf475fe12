"""Packages that import a public name when it is first used, so that torch is loaded only when it is needed.

The stub of a package, `__init__.pyi`, lists its public names as `from module import name`; type checkers and the
program read the same list. This is SPEC 1 of the scientific Python packages. Their library `lazy-loader` does not work
here: if a module is imported before the function of the same name, such as `protquant.measuring.evaluate`, the package
would show the module instead of the function.
"""

import ast
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["make_lazy"]


def make_lazy(package: str) -> None:
    """Let a package import the names of its stub, and its own submodules, on first access.

    Parameters
    ----------
    package : str
        `__name__` of the package. It calls this function while it is being imported.
    """
    module = sys.modules[package]
    assert module.__file__ is not None
    stub = ast.parse(Path(module.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    module.__dict__["_sources"] = {
        alias.asname or alias.name: (statement.module, alias.name)
        for statement in stub.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    module.__dict__["__all__"] = sorted(module.__dict__["_sources"])
    module.__class__ = _LazyPackage


class _LazyPackage(ModuleType):
    """A package after `make_lazy`."""

    _sources: dict[str, tuple[str, str]]

    def __getattr__(self, name: str) -> Any:
        """Import a name on first access; Python calls this only while the attribute is missing."""
        if name in self._sources:
            source, attribute = self._sources[name]
            value = getattr(import_module(source), attribute)
            setattr(self, name, value)
            return value
        path = f"{self.__name__}.{name}"
        if not name.startswith("_") and find_spec(path) is not None:
            return import_module(path)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; where an import sets a submodule, store its public object of the same name instead."""
        if name in self._sources and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._sources})
