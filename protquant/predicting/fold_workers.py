"""Fold batches in several processes that share the weights."""

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
    """Restrict torch to one thread before workers are forked, and yield the number of threads to divide among them.

    A process that has computed on several threads must not fork: the child would wait for threads that it does not
    have.

    Raises
    ------
    ProtquantError
        If there are fewer than 1 workers, or several on a GPU or on a system other than Linux.
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
    """Call a function in a new process, which may use all threads and leaves no memory in this one.

    Raises
    ------
    ProtquantError
        If the function fails; the new process has printed the reason.
    """
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments, kwargs=named)
    process.start()
    process.join()
    if process.exitcode:
        raise ProtquantError(f"preparing the model failed ({_ending(process.exitcode)}); see above")


def each_by_workers(
    function: Callable[[T], R], items: Sequence[T], workers: int, threads: int
) -> Generator[R, None, None]:
    """Yield the result of a function for each item, in the order in which they finish.

    Workers are forks of this process, and share all memory that they do not change.

    Parameters
    ----------
    function : callable
        Function to call; its results and exceptions are pickled.
    threads : int
        Number of threads of each worker.

    Raises
    ------
    ProtquantError
        If a worker is killed.
    Exception
        Any exception of the function.
    """
    context = multiprocessing.get_context("fork")
    processes: list[BaseProcess] = []
    pipes: _Workers = {}
    gc.collect()
    gc.freeze()  # otherwise garbage collection in a worker would copy the pages of all objects
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
                # Before the result is used, so that the worker need not wait.
                _give_next(pipe, waiting, pipes)
                yield result
    finally:
        gc.unfreeze()
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def _hear_that_they_compute(pipes: _Workers) -> None:
    """Wait until all workers have computed something: forks of a process that used several threads would hang."""
    silent = dict(pipes)
    while silent:
        heard = cast("list[Connection]", wait(list(silent), _SECONDS_TO_BEGIN))
        for pipe in heard:
            with suppress(EOFError, OSError):  # the end of a worker is reported later
                pipe.recv()
            del silent[pipe]
        if not heard:
            raise ProtquantError(
                "workers cannot compute, because this process has computed on several threads before it made them: give"
                " workers to a process of its own, as `protquant fold --workers` is"
            )


def _give_next(pipe: Connection, waiting: Iterator[int], pipes: _Workers) -> None:
    """Send a worker its next item, or None to end it."""
    index = next(waiting, None)
    with suppress(OSError):  # the end of a worker is noticed when its answer is awaited
        pipe.send(index)
    if index is None:
        del pipes[pipe]


def _work(
    function: Callable[[T], R], items: Sequence[T], pipe: Connection, other_end: Connection, threads: int
) -> None:
    other_end.close()
    # The parent handles interruptions. A worker ends with its parent, because nobody would read its results.
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
            # As text: not every error can be pickled.
            answer = (True, OutputError(str(error)) if isinstance(error, OutputError) else ProtquantError(str(error)))
        except Exception:  # noqa: BLE001 (the parent raises it)
            answer = (True, RuntimeError(f"in a worker:\n{traceback.format_exc()}"))
        pipe.send(answer)
    os._exit(0)  # without the exit handlers of the parent


def _ending(code: int | None) -> str:
    return f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
