"""Run a program under a memory limit, and measure its time and memory."""

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

_INTERVAL = 0.1  # seconds between two measurements of a process
_OWN = Path("/proc/self/status")


@dataclass(frozen=True)
class ProcessOutcome:
    """The end of a program, and its time and memory.

    Attributes
    ----------
    exit_code : int
        Exit code; a negative number is the signal that ended the program, such as -9.
    seconds, cpu_seconds : float
        Elapsed time, and CPU time of all threads. If the second is much less than the first times the number of
        threads, other programs used the processors.
    limit : int or None
        Memory limit in bytes.
    enforced : bool
        Whether the limit was enforced.
    how : str
        Means of enforcement, or the reason why there was none.
    over_limit : bool
        Whether the program was killed because it exceeded the limit.
    timed_out : bool
        Whether the program was stopped because it took too long.
    resident_peak : int or None
        Peak of resident memory (VmHWM): allocated memory and pages of files. None if the system does not report it.
    anonymous_peak : int or None
        Peak of allocated memory, without files, from measurements every tenth of a second.
    charged_peak : int or None
        Peak that the control group counted: allocated memory, and pages of files that the program was first to read,
        which the kernel drops when memory is short. None without a group.
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
        """Text for the limit, which says if it was not enforced."""
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
        Memory limit in bytes for the program and all processes that it starts; None for no limit.
    output, log : Path
        Files for standard output and standard error.
    requests : str, optional
        Standard input of the program; by default that of this process.
    environment : mapping, optional
        Variables of the environment; by default those of this process.
    timeout : float, optional
        Seconds after which the program is stopped.
    watch : callable
        Called every `watch_seconds` with the elapsed seconds, and the peak of resident memory in bytes.
    find_limit : callable
        Returns the limit to enforce.

    Returns
    -------
    ProcessOutcome
        Outcome of the program, also if it fails or is killed.

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
    """Return a line of a process's status in bytes; None if the system does not report it.

    Parameters
    ----------
    field : str
        `VmRSS`, resident memory; `VmHWM`, its peak; `RssAnon`, its allocated part; or another name from proc(5).
    status : Path
        Status file of the process; by default that of this process.
    """
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Raise SystemExit on SIGTERM, so that the program and its limit do not outlive this process."""
    if threading.current_thread() is not threading.main_thread():  # other threads cannot handle signals
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
        # Popen.wait does not return the CPU time and memory of the process.
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
    # The system reports the final peak, which includes the last tenth of a second. But a child inherits the peak of
    # this process, which the system reports to a few percent; so a final peak below that is not used.
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
        # A scope of systemd is gone and cannot be asked; but nothing else kills with this signal.
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
    """Kill remaining processes of the program, such as after an interruption."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    if process.returncode is None:
        process.wait()
