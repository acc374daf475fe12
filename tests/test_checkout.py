"""Tools that read source code find every package of a plain checkout, in which nothing is installed."""

from pathlib import Path

import jedi
import pytest
from mypy.modulefinder import FindModuleCache, SearchPaths

FOLDERS = ("configs", "kernels", "structures")
REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the packages of this repository at the places where a clone has them, links included."""
    for name in ("protquant", *FOLDERS):
        for file in (REPOSITORY / name).rglob("*.py*"):
            if file.suffix in {".py", ".pyi"}:
                copy = tmp_path / file.relative_to(REPOSITORY)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())
    for name in FOLDERS:
        link = REPOSITORY / "protquant" / name
        (tmp_path / "protquant" / name).symlink_to(link.readlink(), target_is_directory=True)
    return tmp_path


def test_an_editor_goes_from_an_import_of_kernels_to_the_file_in_the_checkout(checkout: Path):
    project = jedi.Project(checkout, sys_path=[str(checkout)], smart_sys_path=False)
    source = "from protquant.kernels.operands import IntegerWeight\n"
    (place,) = jedi.Script(source, path=checkout / "mine.py", project=project).goto(1, len(source) - 2)
    assert place.module_path is not None
    assert place.module_path.resolve() == checkout / "kernels" / "operands.py"
    assert "class IntegerWeight" in place.get_line_code()


@pytest.mark.parametrize("name", ["protquant.kernels.operands", "protquant.structures.reader", "protquant.configs"])
def test_the_type_checker_finds_packages_of_the_top_level_folders(checkout: Path, name: str):
    paths = SearchPaths(python_path=(str(checkout),), mypy_path=(), package_path=(), typeshed_path=())
    found = FindModuleCache(paths, fscache=None, options=None).find_module(name)
    assert isinstance(found, str), found
    relative = Path(found).resolve().relative_to(checkout.resolve())
    assert ".".join(relative.with_suffix("").parts).removesuffix(".__init__") == name.removeprefix("protquant.")
