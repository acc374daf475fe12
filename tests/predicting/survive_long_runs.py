"""Fold thousands of records with the demo model while processes are killed and disks fill, and compare the bytes.

    python tests/predicting/survive_long_runs.py WORK_FOLDER [--records 2000] [--only killed full-disk workers shards]

Run by hand: it takes a quarter of an hour or more. Every scenario has to end with the files of an uninterrupted run,
byte for byte, no target recorded twice, and no temporary file. `full-disk` mounts a tmpfs, for which it must be root.
"""

import argparse
import filecmp
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

SCENARIOS = ("killed", "full-disk", "workers", "shards")
KILLS = 10
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


def say(text: str) -> None:
    """Print at once: this runs for long, and into a log."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def write_fasta(path: Path, count: int) -> None:
    """Short random sequences: what is looked at is what is written, not what is folded."""
    draw = random.Random(1)
    sequences = ("".join(draw.choices(RESIDUES, k=draw.randint(12, 30))) for _ in range(count))
    path.write_text("".join(f">r{number}\n{sequence}\n" for number, sequence in enumerate(sequences)))


def start(work: Path, output: Path, *options: str) -> subprocess.Popen[bytes]:
    """Begin to fold; what it says goes to `<output>.log`."""
    command = [sys.executable, "-m", "protquant", "fold", "-i", str(work / "in.fasta"), "-o", str(output)]
    command += ["-m", "demo", "--even-so", "--no-plots", "--num-recycles", "0", *options]
    with (work / f"{output.name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started, at once."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


def peak_of(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; return the most bytes that it and its children had, shared pages counted once."""
    peak = 0
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            root = psutil.Process(process.pid)
            peak = max(peak, sum(each.memory_full_info().pss for each in [root, *root.children(recursive=True)]))
        time.sleep(0.2)
    return peak


def recorded(folder: Path, manifest: str = "manifest.jsonl") -> list[str]:
    """Names in the manifest, in order, as often as they stand there; a torn last line is none."""
    names = []
    with suppress(FileNotFoundError):
        for line in (folder / manifest).read_text().splitlines():
            with suppress(json.JSONDecodeError):
                names += [name for name in [json.loads(line).get("name")] if name]
    return names


def compare(truth: Path, folder: Path, *, manifest: bool = True) -> bool:
    """Whether both folders hold the same files with the same bytes, and nothing stands twice."""
    ours, theirs = ({path.name for path in each.iterdir()} for each in (folder, truth))
    if not manifest:  # its order is that of the work, which shards and workers share otherwise
        ours, theirs = ours - {"manifest.jsonl"}, theirs - {"manifest.jsonl"}
    _, different, broken = filecmp.cmpfiles(truth, folder, ours & theirs, shallow=False)
    twice = [name for name, count in Counter(recorded(folder)).items() if count > 1]
    hidden = sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
    say(
        f"  {len(ours)} files; missing {len(theirs - ours)}, besides {sorted(ours - theirs)[:5]}, "
        f"different {sorted(different + broken)[:5]}, recorded twice {len(twice)}, hidden {hidden}"
    )
    return not (ours ^ theirs or different or broken or twice or hidden)


def killed(work: Path, truth: Path) -> bool:
    """Kill the run ten times at random moments; what was recorded must not be folded again."""
    output, draw = work / "killed", random.Random()
    for number in range(KILLS):
        process = start(work, output)
        time.sleep(draw.uniform(4, 30))
        alive = process.poll() is None
        kill(process)
        say(f"  kill {number + 1}: {len(recorded(output))} recorded{'' if alive else ', and it had ended'}")
    before = {path.name: path.stat().st_mtime_ns for name in recorded(output) for path in output.glob(f"{name}.*")}
    code = start(work, output).wait()
    again = [name for name, stamp in before.items() if (output / name).stat().st_mtime_ns != stamp]
    say(f"  then exit code {code}; files of recorded targets that were written again: {len(again)}")
    return compare(truth, output) and not again


@contextmanager
def small_disk(folder: Path, size: int):
    """Mount a tmpfs of `size` bytes at a folder."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def full_disk(work: Path, truth: Path) -> bool:
    """Fill the disk twice, at a third and at two thirds, and go on after there is room."""
    mount = work / "disk"
    size = sum(-(-path.stat().st_size // 4096) * 4096 for path in truth.iterdir())
    with small_disk(mount, size // 3):
        output = mount / "full-disk"
        for share in (2 / 3, 2):
            began = time.perf_counter()
            code = start(work, output).wait()
            seconds = time.perf_counter() - began
            last = (work / "full-disk.log").read_text().rstrip().rpartition("\n")[2]
            say(f"  exit code {code} after {seconds:.0f} s, {len(recorded(output))} recorded: {last}")
            if code != 2:
                return False
            subprocess.run(["mount", "-o", f"remount,size={int(size * share)}", mount], check=True)
        code = start(work, output).wait()
        say(f"  then exit code {code}")
        return compare(truth, output)


def workers(work: Path, truth: Path) -> bool:
    """Two workers: the bytes of one, and at most 1.3 times its memory."""
    peaks = {}
    for count in ("1", "2"):
        began = time.perf_counter()
        peaks[count] = peak_of(start(work, work / f"workers{count}", "--workers", count))
        say(f"  {count}: {peaks[count] / 2**20:.0f} MiB, {time.perf_counter() - began:.0f} s")
    say(f"  {peaks['2'] / peaks['1']:.2f} times the memory of one")
    return compare(truth, work / "workers2", manifest=False) and peaks["2"] <= 1.3 * peaks["1"]


def shards(work: Path, truth: Path) -> bool:
    """Four shards in four processes, of which one is killed; then that one again, and the merge."""
    output = work / "shards"
    running = [start(work, output, "--shard", f"{part}/4") for part in range(1, 5)]
    while len(recorded(output, "manifest.3-of-4.jsonl")) < 10:
        time.sleep(0.5)
    kill(running[2])
    codes = [process.wait() for process in running]
    merge = [sys.executable, "-m", "protquant", "merge", str(output), "-i", str(work / "in.fasta")]
    early = subprocess.run(merge, capture_output=True, text=True, check=False)
    say(f"  exit codes {codes}; merged early: {early.returncode}, {early.stderr.strip().splitlines()[-1:]}")
    again = start(work, output, "--shard", "3/4").wait()
    late = subprocess.run(merge, capture_output=True, text=True, check=False)
    say(f"  again {again}; merged: {late.returncode}, {late.stderr.strip().splitlines()[-1:]}")
    return compare(truth, output, manifest=False) and (early.returncode, late.returncode) == (2, 0)


def main() -> int:
    """Run the scenarios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    given = parser.parse_args()
    # With more threads the last bits depend on how many there are, and workers share them.
    os.environ["OMP_NUM_THREADS"] = "1"
    work: Path = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    write_fasta(work / "in.fasta", given.records)
    return run(work, given.only)


def run(work: Path, only: Sequence[str]) -> int:
    """Fold once without interruption, then in each of the ways; the exit code says whether all was the same."""
    truth = work / "once"
    if not (truth / "predictions.csv").exists():
        began = time.perf_counter()
        code = start(work, truth).wait()
        say(f"once: exit code {code}, {len(recorded(truth))} recorded, {time.perf_counter() - began:.0f} s")
    failed = []
    for name in only:
        for old in work.glob(f"{name}*"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        say(f"{name}:")
        if not {"killed": killed, "full-disk": full_disk, "workers": workers, "shards": shards}[name](work, truth):
            failed.append(name)
    say(f"NOT the same: {', '.join(failed)}" if failed else "all the same")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
