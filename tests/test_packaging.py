"""What is installed: one package with its data, and nothing beside it."""

import subprocess
import sys
from importlib import import_module, resources, util
from importlib.metadata import distribution
from pathlib import Path, PurePosixPath

import pytest

import protquant

FOLDERS = ("configs", "kernels", "structures")
REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize("folder", FOLDERS)
def test_top_level_folder_is_a_subpackage(folder: str) -> None:
    module = import_module(f"protquant.{folder}")
    assert module.__name__ == f"protquant.{folder}"
    inside = Path(protquant.__file__).parent / folder  # of a wheel
    assert Path(module.__file__ or "").parent in (inside, REPOSITORY / folder)


@pytest.mark.parametrize("folder", [*FOLDERS, "tests", "notebooks"])
def test_no_bare_module_is_installed(folder: str, tmp_path: Path) -> None:
    # A process of its own, elsewhere: the repository's folders are importable as namespaces from here.
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({folder!r}) is not None)"
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True)


def test_distribution_records_no_bare_module() -> None:
    files = distribution("protquant").files
    assert files is not None
    tops = {PurePosixPath(file).parts[0] for file in files}
    assert not tops & {*FOLDERS, "tests", "notebooks"}
    assert (distribution("protquant").read_text("top_level.txt") or "protquant").split() == ["protquant"]


def test_every_module_of_the_repository_is_importable() -> None:
    missing = []
    for folder in ("protquant", *FOLDERS):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            name = ".".join(("protquant", *parts) if folder in FOLDERS else parts).removesuffix(".__init__")
            if util.find_spec(name) is None:
                missing.append(name)
    assert missing == []


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for folder in ("protquant", *FOLDERS) for path in (REPOSITORY / folder).rglob("*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("protquant", "py.typed"),
        ("protquant.configs", "sweep.yaml"),
        ("protquant.configs", "quant/fp32.yaml"),
        ("protquant.demo", "example.fasta"),
        ("protquant.proteins", "data/calibration.fasta"),
        ("protquant.structures", "data/ts50/index.csv"),
        ("protquant.structures", "data/ts50/1ahsA.pdb.gz"),
    ],
)
def test_data_is_present(package: str, name: str) -> None:
    assert (resources.files(package) / name).is_file()


def test_commands_are_registered_once() -> None:
    scripts = distribution("protquant").entry_points.select(group="console_scripts")
    assert {script.name: script.value for script in scripts} == {
        "protquant": "protquant.start:main",
        "protquant-esm-fold": "protquant.start:esm_fold",
        "protquant-sweep": "protquant.start:sweep",
    }
