"""Fuzz the parsers by atheris (`pip install 'protquant[fuzz]'`), for as long as you like.

    python tests/fuzz/run.py                              # every target for a minute
    python tests/fuzz/run.py --target pdb --seconds 900   # one for a quarter of an hour

The targets are in `targets.py`. Inputs that led somewhere new are kept in `build/fuzz/TARGET/corpus`, and the next run
begins with them; what broke a target is in `build/fuzz/TARGET/findings`. Mend the code, then move the input to
`tests/fuzz/regressions/TARGET`, from where the test suite takes it.

An input is a finding if the parser raises anything but a `ProtquantError` that names the file, takes more than 10
seconds, or brings the process to more than 2 GiB of memory. libFuzzer ends a target at its first finding. Inputs that
unpack to more than 1 MiB are left out: 335,000 good records of 7 bytes take 12 seconds where atheris counts lines.
"""

import argparse
import re
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from random import Random
from time import monotonic

FOLDER = Path(__file__).parents[2] / "build" / "fuzz"
MAX_UNPACKED = 2**20
LIMITS = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1", "-verbosity=1"]


def main() -> int:
    """Fuzz the chosen targets one after the other, and print a line about each."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--target", action="append", help="repeat for several; by default all")
    arguments.add_argument("--seconds", type=int, default=60, help="for each target")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.in_this_process:
        _fuzz(options.target[0], options.seconds, options.seed)
    names = options.target or _names()
    return max(_report(name, options.seconds, options.seed) for name in names)


def _names() -> list[str]:
    program = "import targets; print(*targets.TARGETS)"
    found = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, check=True)
    return found.stdout.decode().split()


def _report(name: str, seconds: int, seed: int) -> int:
    """Fuzz a target in a process of its own, which libFuzzer ends."""
    findings = FOLDER / name / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    command = [sys.executable, __file__, "--in-this-process", "--target", name]
    log = FOLDER / name / "log.txt"
    start = monotonic()
    with log.open("wb") as stream:
        command += ["--seconds", str(seconds), "--seed", str(seed)]
        code = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False).returncode
    text = log.read_text(errors="replace")
    runs = re.search(r"number_of_executed_units:\s+(\d+)", text)
    peak = re.search(r"peak_rss_mb:\s+(\d+)", text)
    new = sorted(set(findings.iterdir()) - before)
    counted = f"{runs[1]} inputs, at most {peak[1]} MiB" if runs and peak else f"exit code {code}"
    print(
        f"{name}: {monotonic() - start:.0f} of {seconds} s, {counted}, {len(new)} findings",
        *new,
        sep="\n  ",
        flush=True,
    )
    if code and not new:
        print(f"  ended by itself: see {log}")
    return int(bool(code or new))


def _fuzz(name: str, seconds: int, seed: int) -> None:
    import atheris  # noqa: PLC0415 (an extra)

    with atheris.instrument_imports(include=["protquant"]):
        from targets import TARGETS  # noqa: PLC0415

    target = TARGETS[name]
    corpus = FOLDER / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed_input in enumerate([*target.seeds(), *(path.read_bytes() for path in target.kept())]):
        (corpus / f"seed{number}").write_bytes(seed_input)

    def check(data: bytes) -> None:
        if not _unpacks_to_much(data):
            target.check(data)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.5:
            return atheris.Mutate(data, max_size)
        return target.mutate(data, random)[:max_size]

    limits = [*LIMITS, f"-max_total_time={seconds}", f"-seed={seed}", f"-artifact_prefix={FOLDER / name / 'findings'}/"]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], check, custom_mutator=mutate)
    atheris.Fuzz()


def _unpacks_to_much(data: bytes) -> bool:
    """Tell whether a gzip file is a large one, which takes more than 10 seconds where every line of code is counted."""
    unpacker = zlib.decompressobj(wbits=31)
    size = 0
    with suppress(zlib.error):
        while data.startswith(b"\x1f\x8b") and size <= MAX_UNPACKED:
            size += len(unpacker.decompress(data, MAX_UNPACKED))
            data, unpacker = unpacker.unused_data, zlib.decompressobj(wbits=31)
    return size > MAX_UNPACKED


if __name__ == "__main__":
    sys.exit(main())
