"""Installed packages register steps and formats by entry points, and a broken one is named."""

import json
import os
import subprocess
import sys
from pathlib import Path

STEP = """
from dataclasses import dataclass

from protquant.quant import LinkTransform, register_step


@register_step("halving")
@dataclass(frozen=True, kw_only=True)
class Halving(LinkTransform):
    share: float = 0.5

    def apply(self, link, evidence, assignments): ...
"""


def install(folder: Path, source: str) -> None:
    """Lay out a distribution as pip does."""
    (folder / "halving_plugin.py").write_text(source)
    info = folder / "halving-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: halving\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[protquant.plugins]\nhalving = halving_plugin\n")


def protquant(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "protquant", *words]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)


def test_an_installed_step_is_known_to_recipes_and_to_their_schema(tmp_path: Path):
    install(tmp_path, STEP)
    done = protquant(tmp_path, "recipes", "--schema")
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout)["properties"]["steps"]["items"]["oneOf"]
    (mine,) = [step for step in steps if step["properties"]["step"]["const"] == "halving"]
    assert mine["properties"]["share"]["default"] == 0.5


def test_a_plugin_that_cannot_be_imported_is_named_with_its_package(tmp_path: Path):
    install(tmp_path, "import nowhere_at_all")
    done = protquant(tmp_path, "recipes", "--schema")
    assert done.returncode == 2
    message = " ".join(done.stderr.replace("│", " ").split())
    assert "plug-in 'halving' of halving" in message
    assert "nowhere_at_all" in message


def test_an_installed_step_does_not_replace_one_of_ours(tmp_path: Path):
    install(tmp_path, STEP.replace("halving", "smoothquant"))
    done = protquant(tmp_path, "recipes", "--schema")
    assert done.returncode == 2
    message = " ".join(done.stderr.replace("│", " ").split())
    assert "step 'smoothquant' is registered twice" in message
    assert "halving_plugin.Halving" in message
