"""Candidates that tests let workers build: a script of the standard library alone, as those of other packages are."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any


def sleeps(seconds: float) -> Callable[[], str]:
    print("a library prints what it likes")  # noqa: T201
    os.write(1, b"and so does a library in C\n")

    def run(more: float = 0.0) -> str:
        time.sleep(seconds + more)
        return "slept"

    return run


def tells() -> Callable[[], dict[str, Any]]:
    return lambda: {"threads": os.environ["OMP_NUM_THREADS"], "has torch": "torch" in sys.modules, "pid": os.getpid()}


def allocates(mebibytes: int) -> Callable[[], int]:
    return lambda: len(bytearray(b"x") * (mebibytes * 2**20))


def fails() -> None:
    raise ValueError("no such model\nand a long story")


def ends() -> Callable[[], None]:
    return lambda: os._exit(3)
