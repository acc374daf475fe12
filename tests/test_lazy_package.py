"""Packages import their public names when these are used, and show what an import of everything would show."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import protquant

REPOSITORY = Path(__file__).parents[1]
STUBS = sorted(path for folder in ("protquant", "structures") for path in (REPOSITORY / folder).rglob("__init__.pyi"))


def package_of(stub: Path) -> str:
    parts = stub.parent.relative_to(REPOSITORY).parts
    return ".".join(parts if parts[0] == "protquant" else ("protquant", *parts))


def run(code: str) -> str:
    """What a program of its own prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("stub", STUBS, ids=package_of)
def test_a_package_has_every_name_of_its_stub_and_no_module_in_place_of_one(stub: Path):
    package = import_module(package_of(stub))
    tree = ast.parse(stub.read_text())
    (public,) = (ast.literal_eval(each.value) for each in tree.body if isinstance(each, ast.Assign))
    assert package.__all__ == sorted(public)
    assert set(public) <= set(dir(package))
    for statement in tree.body:
        for alias in statement.names if isinstance(statement, ast.ImportFrom) else ():
            value = getattr(package, alias.name)
            assert value is getattr(import_module(statement.module), alias.name)
            assert not isinstance(value, ModuleType)


def test_a_function_stays_where_the_module_of_its_name_is_imported_first():
    code = (
        "from protquant.measuring.score import score as function\n"
        "import protquant, protquant.predicting\n"
        "print(protquant.measuring.score is function is protquant.score)"
    )
    assert run(code) == "True"


def test_subpackages_are_there_without_an_import_of_their_own():
    assert run("import protquant; print(protquant.scores.tm_score.__name__)") == "tm_score"


@pytest.mark.parametrize("name", ["nothing", "_nothing", "__nothing__"])
def test_what_a_package_does_not_have_is_an_attribute_error(name: str):
    with pytest.raises(AttributeError, match=f"module 'protquant' has no attribute '{name}'"):
        getattr(protquant, name)


@pytest.mark.parametrize("package", ["proteins", "scores", "structures"])
def test_all_of_a_package_that_computes_nothing_is_imported_without_torch(package: str):
    code = f"import sys; from protquant.{package} import *; print({{'torch', 'transformers'}} & {{*sys.modules}})"
    assert run(code) == "set()"
