"""The float model's answers and scores, kept on disk, so that jobs that compare with it need not compute them again."""

import io
import json
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from protquant.files import atomic_write, fingerprint, prepare_folder
from protquant.measuring.tasks import Outcome, Task
from protquant.models import ProteinModel

__all__ = ["run_float"]

_SCORES = "scores.json"  # no name of a target: those are stems of files


def run_float(task: Task, model: ProteinModel, label: str, cache: Path | None, identity: str) -> Outcome:
    """`task.run` of the float model, or what `cache` knows of it; `task.baseline` is filled either way.

    Parameters
    ----------
    cache : Path or None
        A folder, which is made if it does not exist; None keeps nothing.
    identity : str
        Of the model: weights, number type and device.
    """
    if cache is None:
        return task.run(model, label, is_float=True)
    digits = fingerprint({"identity": identity, "version": version("protquant"), **task.settings()})
    path = prepare_folder(cache) / f"float-{task.name}-{digits[:16]}.npz"
    known = _read(path, task)
    if known is not None:
        return known
    outcome = task.run(model, label, is_float=True)
    scores = {"targets": outcome.targets, "failures": outcome.failures, "seconds": outcome.seconds}
    content = io.BytesIO()
    # A leading letter: savez has an argument called file, and a target may be called so too.
    arrays: dict[str, Any] = {f"a/{name}": array for name, array in task.baseline.items()}
    arrays[_SCORES] = json.dumps(scores)
    np.savez(content, **arrays)
    atomic_write(path, content.getvalue())
    return outcome


def _read(path: Path, task: Task) -> Outcome | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            scores = json.loads(str(arrays[_SCORES]))
            baseline = {name.removeprefix("a/"): arrays[name] for name in arrays.files if name != _SCORES}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # Not there, or damaged: it costs no more than computing it.
    task.baseline = baseline
    return Outcome(scores["targets"], scores["failures"], scores["seconds"])
