"""Run a program in a process of its own under a limit of memory, and tell what it took."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from protquant.bench.memory_limit import MemoryLimit, Usage, memory_limit
from protquant.errors import ProtquantError

__all__ = ["ProcessOutcome", "resident_bytes", "run_limited"]

_INTERVAL = 0.1  # seconds between looks at a process
_OWN = Path("/proc/self/status")


@dataclass(frozen=True)
class ProcessOutcome:
    """How a program ended and what it took.

    Attributes
    ----------
    exit_code : int
        Negative where a signal ended it: -9 where it was killed.
    seconds, cpu_seconds : float
        Of the clock, and of processors, all of its threads together. Where the second is much less than the first times
        the number of threads, others had the processors.
    limit : int or None
        Bytes of memory that were allowed.
    enforced : bool
        Whether something kept the limit.
    how : str
        What kept it, or why nothing did.
    over_limit : bool
        Whether it was killed because it did not fit.
    timed_out : bool
        Whether it was stopped because it took too long.
    resident_peak : int or None
        Peak of its resident memory, VmHWM: what it allocated and the pages of files it looked at. None where the system
        does not tell.
    anonymous_peak : int or None
        The most it had allocated at one time, by looks each tenth of a second; files do not count.
    charged_peak : int or None
        The most that the control group counted: what was allocated, and files that it was first to read, which the
        kernel drops when memory runs short. None without a group.
    """

    exit_code: int
    seconds: float
    cpu_seconds: float
    limit: int | None
    enforced: bool
    how: str
    over_limit: bool = False
    timed_out: bool = False
    resident_peak: int | None = None
    anonymous_peak: int | None = None
    charged_peak: int | None = None

    @property
    def failed(self) -> bool:
        return self.exit_code != 0 or self.timed_out

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        if self.timed_out:
            return f"STOPPED after {self.seconds:.0f} s"
        if self.over_limit:
            return f"KILLED: did not fit into {self.limit_text}"
        if self.exit_code < 0:
            return f"KILLED by {signal.Signals(-self.exit_code).name}"
        return "done" if self.exit_code == 0 else f"FAILED with exit code {self.exit_code}"

    @property
    def limit_text(self) -> str:
        """The limit for people; says where it was not enforced."""
        if self.limit is None:
            return "none"
        return f"{self.limit / 2**30:.3g} GiB" + ("" if self.enforced else ", NOT ENFORCED")


def run_limited(
    command: Sequence[str],
    limit: int | None,
    *,
    output: Path,
    log: Path,
    requests: str | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
    watch: Callable[[float, int | None], None] = lambda _, __: None,
    watch_seconds: float = 30.0,
    find_limit: Callable[[int | None], MemoryLimit] = memory_limit,
) -> ProcessOutcome:
    """Run a program and wait for its end.

    Parameters
    ----------
    command : sequence of str
    limit : int or None
        Bytes of memory that it may take, with all processes that it starts; None for no limit.
    output, log : Path
        Files for what it writes to standard output and to standard error.
    requests : str, optional
        What it reads from standard input; by default it reads that of this process.
    environment : mapping, optional
        By default that of this process.
    timeout : float, optional
        Seconds after which it is stopped.
    watch : callable
        Told every `watch_seconds` how many seconds have passed, and the peak of resident memory in bytes.
    find_limit : callable
        Makes the limit.

    Returns
    -------
    ProcessOutcome
        A program that fails or is killed is an outcome like any other.

    Raises
    ------
    ProtquantError
        If the program cannot be started.
    """
    limiter = find_limit(limit)
    try:
        with output.open("wb") as out, log.open("wb") as err, TemporaryFile("w+") as asked, _ended_by_sigterm():
            asked.write(requests or "")
            asked.seek(0)
            started = time.perf_counter()
            try:
                process = subprocess.Popen(  # noqa: S603 (the command is ours)
                    limiter.command(command),
                    stdin=None if requests is None else asked,
                    stdout=out,
                    stderr=err,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise ProtquantError(f"{command[0]}: cannot be started ({error.strerror})") from error
            try:
                return _wait(process, limiter, limit, started, timeout, watch, watch_seconds)
            finally:
                _stop(process)
    finally:
        limiter.close()


def resident_bytes(field: str = "VmRSS", status: Path = _OWN) -> int | None:
    """Return a line of a process's status in bytes; None where the system does not tell.

    Parameters
    ----------
    field : str
        `VmRSS`, resident memory; `VmHWM`, its peak; `RssAnon`, what was allocated of it; or another of proc(5).
    status : Path
        By default that of this process.
    """
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Raise SystemExit on SIGTERM, so that the program and its limit do not outlive this process."""
    if threading.current_thread() is not threading.main_thread():  # others cannot handle signals
        yield
        return

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait(
    process: "subprocess.Popen[bytes]",
    limiter: MemoryLimit,
    limit: int | None,
    started: float,
    timeout: float | None,
    watch: Callable[[float, int | None], None],
    watch_seconds: float,
) -> ProcessOutcome:
    status = Path(f"/proc/{process.pid}/status")
    resident: int | None = None
    anonymous: int | None = None
    usage = Usage()
    watched, timed_out = 0.0, False
    while True:
        # Not Popen.wait, which does not tell what the process took.
        ended, code, resources = os.wait4(process.pid, os.WNOHANG)
        seconds = time.perf_counter() - started
        if ended:
            break
        seen = limiter.usage(process.pid)
        usage = usage if seen == Usage() else seen
        resident = _most(resident, resident_bytes("VmHWM", status))
        anonymous = _most(anonymous, usage.anonymous, resident_bytes("RssAnon", status))
        if timeout is not None and seconds > timeout and not timed_out:
            timed_out = True
            os.killpg(process.pid, signal.SIGKILL)
        if seconds - watched >= watch_seconds:
            watched = seconds
            watch(seconds, resident)
        time.sleep(_INTERVAL)
    process.returncode = os.waitstatus_to_exitcode(code)
    last = limiter.usage(process.pid)
    usage = usage if last == Usage() else last
    # The last tenth of a second was not looked at. What the system says at the end is right, except where it is no more
    # than this process's own peak, which the child is given when it is started, and which the system tells to a few
    # percent only.
    if resources.ru_maxrss * 1024 > 1.05 * (resident_bytes("VmHWM") or 0):
        resident = _most(resident, resources.ru_maxrss * 1024)
    killed = process.returncode == -signal.SIGKILL and not timed_out
    return ProcessOutcome(
        process.returncode,
        seconds,
        resources.ru_utime + resources.ru_stime,
        limit,
        limiter.enforced,
        limiter.how,
        # Of a scope of systemd nothing is left to be asked; but nobody else kills with this signal.
        over_limit=limiter.enforced and (bool(usage.kills) or (killed and last == Usage())),
        timed_out=timed_out,
        resident_peak=resident,
        anonymous_peak=anonymous,
        charged_peak=usage.charged_peak,
    )


def _most(*sizes: int | None) -> int | None:
    known = [size for size in sizes if size is not None]
    return max(known) if known else None


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End what is left of the program, as after an interruption."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    if process.returncode is None:
        process.wait()
