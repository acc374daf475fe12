"""Facts about the machine and software of a measurement; a time means nothing without them."""

import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

__all__ = ["INSTRUCTION_SETS", "Machine", "describe_machine"]

# Instruction sets that determine the speed of integer and half-precision arithmetic, as named in Linux's /proc/cpuinfo.
INSTRUCTION_SETS = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
_PACKAGES = ("protquant", "torch", "transformers", "triton", "fair-esm", "torchao", "esm-cpp", "numpy")
_CPUINFO = Path("/proc/cpuinfo")
# Environment variables that hide instruction sets from oneDNN, MKL and torch, to imitate another machine.
_LIMITING = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")


@dataclass(frozen=True)
class Machine:
    """Facts about a machine and its software, without names of hosts, users or folders.

    Attributes
    ----------
    instruction_sets : tuple of str
        Those of `INSTRUCTION_SETS` that the CPU has; empty if the system does not list them.
    limited_by : dict
        Environment variables that keep libraries from using all instruction sets.
    cores : int
        Number of cores that this process may use.
    threads : int
        Number of threads of torch.
    memory_gib : float
    versions : dict
        Versions of the installed packages.
    revision : str or None
        Git commit of protquant, if it runs from a repository; a `+` follows if files were changed.
    date : str
        Time of the measurement in UTC, ISO 8601.
    """

    cpu: str
    instruction_sets: tuple[str, ...]
    limited_by: dict[str, str]
    cores: int
    threads: int
    memory_gib: float
    gpu: str | None
    system: str
    python: str
    versions: dict[str, str]
    revision: str | None
    date: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        sets = f" ({', '.join(self.instruction_sets)})" if self.instruction_sets else ""
        sets += "".join(f", LIMITED BY {name}={value}" for name, value in self.limited_by.items())
        gpu = f"; GPU {self.gpu}" if self.gpu else ""
        return f"{self.cpu}{sets}, {self.cores} cores, {self.threads} threads, {self.memory_gib:.0f} GiB{gpu}"


def describe_machine(cpuinfo: Path = _CPUINFO) -> Machine:
    """Return the facts about this machine, with the current number of threads."""
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    return Machine(
        cpu=model[1].strip() if model else platform.processor() or platform.machine(),
        instruction_sets=tuple(name for name in INSTRUCTION_SETS if name in present),
        limited_by={name: os.environ[name] for name in _LIMITING if name in os.environ},
        cores=_cores(),
        threads=torch.get_num_threads(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions=_versions(),
        revision=_revision(Path(__file__).parent),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _revision(folder: Path) -> str | None:
    """Return the git commit of `folder`; None if git is missing or does not track the folder."""
    try:
        # An installed copy may lie inside another project's repository, but git does not track it there.
        if not _git(folder, "ls-files", "--", "machine.py"):
            return None
        return _git(folder, "rev-parse", "--short=12", "HEAD") + ("+" if _git(folder, "status", "-s", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    return done.stdout.strip()
