"""Start a worker process, which runs one candidate of a benchmark, and send it requests."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

import protquant
from protquant.bench import worker
from protquant.errors import ProtquantError

__all__ = ["CandidateError", "WorkerProcess", "allocator_variables", "count_threads", "environment_of", "target_of"]

WORKER = Path(worker.__file__)
PLUGINS = "PROTQUANT_PLUGINS"
"""Environment variable with the files of `protquant --plugin`, which workers import too."""

_ALLOCATOR = ("MALLOC_", "LD_PRELOAD", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")


class CandidateError(Exception):
    """An error in a worker: its type, and the first line of its message."""


class WorkerProcess:
    """A process that builds one candidate and runs it on request; use it in a `with` block.

    Parameters
    ----------
    threads : int
        Number of threads of the process.
    python : str, optional
        Interpreter of the process; by default this one, with the same modules.

    Raises
    ------
    ProtquantError
        If the process cannot be started.
    """

    def __init__(self, threads: int, python: str | None = None) -> None:
        # Another interpreter is isolated (-I) from the modules of this one; -P leaves out modules beside the script.
        command = [python, "-I", str(WORKER)] if python else [sys.executable, "-P", str(WORKER)]
        try:
            self._process = subprocess.Popen(  # noqa: S603 (this interpreter, or the one that the user names)
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                env=environment_of(threads),
                start_new_session=True,  # An interruption must reach only this process, which then ends the worker.
            )
        except OSError as error:
            raise ProtquantError(f"{command[0]}: cannot be started ({error.strerror})") from error

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Send a request, and wait for the answer.

        Raises
        ------
        CandidateError
            If the request fails, or the process ends.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({"verb": verb, **arguments}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise CandidateError(f"its process ended (code {self._process.wait()})")
        reply = json.loads(line)
        if "problem" in reply:
            raise CandidateError(reply["problem"])
        answer: dict[str, Any] = reply["answer"]
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        with self._process:  # waits for it, and closes its pipes
            pass


def environment_of(threads: int) -> dict[str, str]:
    """Return environment variables with which a program uses this number of threads and finds protquant."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ESM_NUM_THREADS")
    path = os.pathsep.join([str(Path(protquant.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **dict.fromkeys(names, str(threads)), "PYTHONPATH": path}


def target_of(build: Callable[..., Any], *, is_script: bool = False) -> str:
    """Return the name by which a worker finds a function: its module, or the file of a script."""
    return f"{sys.modules[build.__module__].__file__ if is_script else build.__module__}:{build.__name__}"


def plugins() -> list[str]:
    """Return the files of `protquant --plugin`."""
    return [path for path in os.environ.get(PLUGINS, "").split(os.pathsep) if path]


def allocator_variables() -> dict[str, str]:
    """Return environment variables that change how memory is allocated, and so the time that large tensors take.

    By default glibc returns freed blocks above 32 MiB to the system, which fills new pages with zeros: this takes half
    of the time of a float block of the trunk. Workers inherit these variables.
    """
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(_ALLOCATOR)}


def count_threads(threads: int | None) -> int:
    """Return the number of threads of candidates: the given number, or by default torch's.

    Raises
    ------
    ProtquantError
        If the number is below one.
    """
    if threads is not None and threads < 1:
        raise ProtquantError(f"--threads {threads}: give 1 or more")
    return threads or torch.get_num_threads()
