"""Batches that are folded by several processes, which share the weights."""

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar, cast

import torch

from protquant.errors import ProtquantError
from protquant.files import OutputError

__all__ = ["each_by_workers", "in_another_process", "threads_for"]

T = TypeVar("T")
R = TypeVar("R")
_Workers = dict[Connection, BaseProcess]
_SECONDS_TO_BEGIN, _SECONDS_TO_END = 60.0, 10.0
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


@contextmanager
def threads_for(workers: int, device: torch.device) -> Iterator[int]:
    """Let torch compute on one thread until there are workers, and give the number of threads that there are for them.

    A process that has computed on several threads cannot be copied: the copy would wait for threads that it has not.

    Raises
    ------
    ProtquantError
        If there are fewer than 1 workers, or several on a GPU, or on another system than Linux.
    """
    if workers < 1:
        raise ProtquantError(f"--workers {workers}: give 1 or more")
    threads = torch.get_num_threads()
    if workers == 1:
        yield threads
        return
    if device.type != "cpu":
        raise ProtquantError(
            f"--workers {workers}: a GPU is used by one process; give --cpu-only, or --shard and one GPU for each"
        )
    if sys.platform != "linux":
        raise ProtquantError(f"--workers {workers}: processes share weights on Linux only; give --shard")
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def in_another_process(function: Callable[..., object], *arguments: object, **named: object) -> None:
    """Call a function in a process of its own, which may compute on all threads, and which leaves nothing here.

    Raises
    ------
    ProtquantError
        If it fails; that process has told why.
    """
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments, kwargs=named)
    process.start()
    process.join()
    if process.exitcode:
        raise ProtquantError(f"preparing the model failed ({_ending(process.exitcode)}), as is told above")


def each_by_workers(
    function: Callable[[T], R], items: Sequence[T], workers: int, threads: int
) -> Generator[R, None, None]:
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
    processes: list[BaseProcess] = []
    pipes: _Workers = {}
    gc.collect()
    gc.freeze()  # or each worker copies the pages of all objects that its collections of garbage look at
    try:
        for _ in range(min(workers, len(items))):
            ours, theirs = context.Pipe()
            process: BaseProcess = context.Process(
                target=_work, args=(function, items, theirs, ours, threads), daemon=True
            )
            process.start()
            theirs.close()
            processes.append(process)
            pipes[ours] = process
        _hear_that_they_compute(pipes)
        waiting = iter(range(len(items)))
        for pipe in list(pipes):
            _give_next(pipe, waiting, pipes)
        while pipes:
            for pipe in cast("list[Connection]", wait(list(pipes))):
                try:
                    failed, result = pipe.recv()
                except (EOFError, OSError) as error:
                    process = pipes[pipe]
                    process.join(_SECONDS_TO_END)
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
        gc.unfreeze()
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def _hear_that_they_compute(pipes: _Workers) -> None:
    """Wait until all have: a copy of a process that has computed on several threads before waits for ever."""
    silent = dict(pipes)
    while silent:
        heard = cast("list[Connection]", wait(list(silent), _SECONDS_TO_BEGIN))
        for pipe in heard:
            with suppress(EOFError, OSError):  # one that has ended is told of later
                pipe.recv()
            del silent[pipe]
        if not heard:
            raise ProtquantError(
                "workers cannot compute, because this process has computed on several threads before it made them: give"
                " workers to a process of its own, as `protquant fold --workers` is"
            )


def _give_next(pipe: Connection, waiting: Iterator[int], pipes: _Workers) -> None:
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
    torch.ones(2**20).sum()  # on all threads
    pipe.send(None)
    while (index := pipe.recv()) is not None:
        answer: tuple[bool, Any]
        try:
            answer = (False, function(items[index]))
        except ProtquantError as error:
            # By its text: not every error can be pickled.
            answer = (True, OutputError(str(error)) if isinstance(error, OutputError) else ProtquantError(str(error)))
        except Exception:  # noqa: BLE001 (raised by the parent)
            answer = (True, RuntimeError(f"in a worker:\n{traceback.format_exc()}"))
        pipe.send(answer)
    os._exit(0)  # without what the parent is going to do at its end


def _ending(code: int | None) -> str:
    return f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
