"""Batches that are folded by several processes, which share the weights."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import TypeVar

import torch

from protquant.errors import ProtquantError

__all__ = ["check_workers", "each_by_workers"]

T = TypeVar("T")
R = TypeVar("R")
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def check_workers(workers: int, device: torch.device) -> None:
    """Refuse a number of workers that there cannot be; and let torch compute on one thread until they are there.

    A process that has computed on several threads cannot be copied: the copy would wait for threads that it has not.

    Raises
    ------
    ProtquantError
        If it is less than 1, or more on a GPU, or on another system than Linux.
    """
    if workers < 1:
        raise ProtquantError(f"--workers {workers}: give 1 or more")
    if workers == 1:
        return
    if device.type != "cpu":
        raise ProtquantError(
            f"--workers {workers}: a GPU is used by one process; give --cpu-only, or --shard and one GPU for each"
        )
    if sys.platform != "linux":
        raise ProtquantError(f"--workers {workers}: processes share weights on Linux only; give --shard")
    torch.set_num_threads(1)


def each_by_workers(function: Callable[[T], R], items: Sequence[T], workers: int, threads: int) -> Iterator[R]:
    """Yield what a function gives for each item, in the order in which it is done.

    Workers are copies of this process: what they do not change, they share with it.

    Parameters
    ----------
    function : callable
        What it returns, and what it raises, is pickled.
    threads : int
        Of each worker.

    Raises
    ------
    ProtquantError
        If a worker is killed.
    Exception
        What the function raises.
    """
    context = multiprocessing.get_context("fork")
    processes, pipes = [], {}
    try:
        for _ in range(min(workers, len(items))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(function, items, theirs, ours, threads), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            pipes[ours] = process
        waiting = iter(range(len(items)))
        for pipe in list(pipes):
            _give_next(pipe, waiting, pipes)
        while pipes:
            for pipe in wait(list(pipes)):
                assert isinstance(pipe, Connection)
                try:
                    failed, result = pipe.recv()
                except EOFError as error:
                    process = pipes[pipe]
                    process.join()
                    raise ProtquantError(
                        f"a worker ended ({_ending(process.exitcode)}). What is done is safe: run the same command"
                        " again to go on, with fewer workers if memory ran out."
                    ) from error
                if failed:
                    raise result
                # Before what is done is looked at, so that the worker does not wait for that.
                _give_next(pipe, waiting, pipes)
                yield result
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def _give_next(pipe: Connection, waiting: Iterator[int], pipes: dict[Connection, "multiprocessing.Process"]) -> None:
    """Give a worker its next item; without one it is done."""
    index = next(waiting, None)
    with suppress(OSError):  # that it has ended is seen when its answer is waited for
        pipe.send(index)
    if index is None:
        del pipes[pipe]


def _work(
    function: Callable[[T], R], items: Sequence[T], pipe: Connection, other_end: Connection, threads: int
) -> None:
    other_end.close()
    # An interruption is the parent's to tell of; and nobody would hear of what is done after its end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    torch.set_num_threads(threads)
    while (index := pipe.recv()) is not None:
        try:
            answer = (False, function(items[index]))
        except BaseException as error:  # noqa: BLE001 (raised by the parent)
            answer = (True, error)
        pipe.send(answer)
    os._exit(0)  # without what the parent is going to do at its end


def _ending(code: int | None) -> str:
    return f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
