"""Give malformed files to the command line, and see that each ends as it should.

    python tests/fuzz/malformed.py                 # 500 files
    python tests/fuzz/malformed.py --count 5000 --seed 7 --keep FOLDER

A file that is no use must end the command with a message that names it, and with nothing worse: no traceback, no crash,
not more than 10 seconds of processor time, not more than 2 GiB of memory. Each command runs in a process of its own,
forked from one that has imported everything, by the function that the console script calls.
"""

import argparse
import gzip
import importlib
import json
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from random import Random
from zipfile import ZIP_DEFLATED, ZipFile

import torch
from mutations import mutate, mutate_document, mutate_json
from targets import TARGETS, mutate_safetensors, mutate_scheme, sign_config, sign_scheme, tiny_checkpoints

from protquant import start

SECONDS, WALL_SECONDS, MEMORY = 10.0, 90.0, 2 * 2**30
_ADDRESS_SPACE = 6 * 2**30
"""Beyond what the process has when it begins, so that a bomb does not take the machine along."""


@dataclass(frozen=True)
class Case:
    """A malformed file and the command that gets it.

    Attributes
    ----------
    kind, what : str
        For the report.
    file : str
        Name of the file in the working folder; what is in its folder is there as well.
    content : bytes
        Of the file.
    command : tuple of str
        Arguments of `protquant`.
    beside : Path or None
        Folder whose files are put beside it.
    """

    kind: str
    what: str
    file: str
    content: bytes
    command: tuple[str, ...]
    beside: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """How a command ended; `fault` is empty where it ended well."""

    case: Case
    code: int
    seconds: float
    peak: int
    output: str

    @property
    def fault(self) -> str:
        """What was wrong with the end."""
        if self.seconds > SECONDS:
            return f"took {self.seconds:.0f} s"
        if self.peak > MEMORY:
            return f"took {self.peak / 2**30:.1f} GiB"
        if "Traceback" in self.output:
            return "traceback"
        if self.code not in (0, 1, 2):
            return f"ended with {self.code}"
        # Of checkpoints the folder is what was given.
        named = (self.case.file, *self.case.file.split("/")[:-1])
        if self.code and not any(name in self.output for name in named):
            return "message without the file"
        return ""


def run(case: Case, folder: Path) -> Outcome:
    """Run a command in a new process, in a folder of its own."""
    work = Path(tempfile.mkdtemp(dir=folder))
    path = work / case.file
    if case.beside is not None:
        shutil.copytree(case.beside, path.parent, dirs_exist_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(case.content)
    output = work / "output.txt"
    process = os.fork()
    if process == 0:
        os._exit(_command(case, work, output))
    began = time.monotonic()
    while True:
        ended, status, used = os.wait4(process, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - began > WALL_SECONDS:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.005)
    code = os.waitstatus_to_exitcode(status)
    seconds = WALL_SECONDS if code == -signal.SIGKILL else used.ru_utime + used.ru_stime
    outcome = Outcome(case, code, seconds, used.ru_maxrss * 1024, output.read_text(errors="replace"))
    shutil.rmtree(work)
    return outcome


def _command(case: Case, work: Path, output: Path) -> int:
    """What the new process does; returns its exit code."""
    stream = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.chdir(work)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ADDRESS_SPACE,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (2 * int(SECONDS),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.argv = ["protquant", *case.command]
    code = 0
    try:
        start.main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 (what the interpreter would print)
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if _wants_modules:
            print(*sys.modules, sep="\n", file=(work.parent / "modules.txt").open("a"))
    return code


_wants_modules = False


def warm_up(folder: Path) -> None:
    """Run every command on the valid files, which must work, and import what they needed."""
    global _wants_modules  # noqa: PLW0603 (it tells forked processes)
    _wants_modules = True
    torch.set_num_threads(1)
    os.environ["PROTQUANT_CACHE"] = "off"
    os.environ["HF_HUB_OFFLINE"] = "1"
    for kind, make in KINDS.items():
        for case in make(lambda data, _: data, Random(0)):
            outcome = run(case, folder)
            assert outcome.code == 0, f"{kind}: {' '.join(case.command)}: {outcome.output}"
    for name in sorted(set((folder / "modules.txt").read_text().split())):
        if name != "__main__":
            importlib.import_module(name)
    _wants_modules = False


Change = Callable[[bytes, Random], bytes]


def _fasta(change: Change, random: Random) -> Iterator[Case]:
    fold = ("--num-recycles", "0", "--no-plots", "--even-so", "--no-cache", "-m", str(tiny_checkpoints() / "folding"))
    plan = ("--no-measure", "-m", str(tiny_checkpoints() / "folding"))
    for target, file in (("fasta", "x.fasta"), ("csv", "x.csv")):
        content = change(TARGETS[target].seeds()[0], random)
        yield Case(target, "", file, content, ("fold", "-i", file, "-o", "out", *fold))
        yield Case(target, "", file, change(TARGETS[target].seeds()[0], random), ("plan", "-i", file, *plan))


def _structure(name: str, file: str) -> Callable[[Change, Random], Iterator[Case]]:
    def make(change: Change, random: Random) -> Iterator[Case]:
        right = tiny_checkpoints() / "right.pdb"
        right.write_bytes(TARGETS["pdb"].seeds()[0])
        for command in (("score", file, str(right)), ("score", str(right), file)):
            yield Case(name, "", file, change(random.choice(TARGETS[name].seeds()), random), command)

    return make


def _recipe(change: Change, random: Random) -> Iterator[Case]:
    names = ("w8", "w4-g64", "w8a8-uniform", "w8a8-smoothquant", "w4a8-gptq", "w6a6-pwlq", "w8a8-token", "aaq")
    seeds = {path.stem: path for path in (Path(__file__).parents[2] / "configs" / "quant").glob("*.yaml")}
    native = str(tiny_checkpoints() / "native")
    content = change(seeds[random.choice(names)].read_bytes(), random)
    yield Case("recipe", "", "x.yaml", content, ("inspect", "-m", native, "--quant", "x.yaml"))
    content = change(seeds[random.choice(names)].read_bytes(), random)
    yield Case("recipe", "", "x.yaml", content, ("quantize", "-m", native, "-q", "x.yaml", "-o", "out"))


def _checkpoint(
    layout: str, file: str, sign: Callable[[bytes], bytes] = lambda data: data
) -> Callable[..., Iterator[Case]]:
    def make(change: Change, random: Random) -> Iterator[Case]:
        folder = tiny_checkpoints() / layout
        content = sign(change((folder / file).read_bytes(), random))
        yield Case(f"{layout}/{file}", "", f"model/{file}", content, ("inspect", "-m", "model"), folder)

    return make


def _fair_esm(change: Change, random: Random) -> Iterator[Case]:
    content = change((tiny_checkpoints() / "fair.pt").read_bytes(), random)
    yield Case("fair.pt", "", "fair.pt", content, ("inspect", "-m", "fair.pt"))


KINDS: dict[str, Callable[[Change, Random], Iterator[Case]]] = {
    "fasta": _fasta,
    "pdb": _structure("pdb", "x.pdb"),
    "mmcif": _structure("mmcif", "x.cif"),
    "bcif": _structure("bcif", "x.bcif"),
    "recipe": _recipe,
    "scheme": _checkpoint("quantized", "scheme.json", sign_scheme),
    "config": _checkpoint("native", "config.json", sign_config),
    "hub": _checkpoint("hub", "config.json"),
    "weights": _checkpoint("hub", "model.safetensors"),
    "codes": _checkpoint("quantized", "model.safetensors"),
    "fair_esm": _fair_esm,
}
_SHARES = {"fasta": 5, "pdb": 5, "mmcif": 5, "bcif": 2, "recipe": 8, "scheme": 6, "config": 4, "hub": 5, "weights": 3}
_SHARES |= {"codes": 2, "fair_esm": 3}
_CHANGES: dict[str, Change] = {"scheme": mutate_scheme, "config": mutate_json, "hub": mutate_json}
_CHANGES |= {"weights": mutate_safetensors, "codes": mutate_safetensors}


def _mutate_recipe(data: bytes, random: Random) -> bytes:
    """Change a value of a recipe, or its text."""
    import yaml  # noqa: PLC0415

    if random.random() < 0.3:
        return mutate(data, random)
    return yaml.safe_dump(mutate_document(yaml.safe_load(data), random), allow_unicode=True).encode()


_CHANGES["recipe"] = _mutate_recipe


def _bombs() -> Iterator[tuple[str, bytes]]:
    """Contents that are small, and become large where they are believed."""
    yield "gzip of 3 GB of nothing", gzip.compress(gzip.compress(bytes(2**26)))  # a gzip in a gzip is no file of ours
    yield "gzip of blank lines", gzip.compress(b"\n" * 2**28, 1)
    yield "16 MiB of blank lines", b"\n" * 2**24
    yield "16 MiB of short lines", b"a\n" * 2**23
    yield "16 MiB of headers", b">\n" * 2**23
    yield "16 MiB in one line", b"A" * 2**24
    yield "a zip", _zip(b"x" * 2**20)
    yield "a tar", bytes(257) + b"ustar" + bytes(2000)
    yield "JSON nested deep", b"[" * 200_000
    yield "YAML nested deep", b"a: " + b"[" * 200_000
    yield "YAML of aliases", _aliases()
    yield "YAML that contains itself", b"kinds: &a {linear_weight: *a}\n"


def _zip(content: bytes) -> bytes:
    stream = BytesIO()
    with ZipFile(stream, "w", ZIP_DEFLATED) as archive:
        archive.writestr("fair/data.pkl", content)
    return stream.getvalue()


def _aliases() -> bytes:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    return ("\n".join(lines) + "\n").encode()


def _only(content: bytes) -> Change:
    return lambda _data, _random: content


def _in_json(**values: object) -> Change:
    """Set values of a document at paths with two underscores between."""

    def change(data: bytes, _random: Random) -> bytes:
        document = json.loads(data)
        for path, value in values.items():
            *places, last = path.split("__")
            inner = document
            for place in places:
                inner = inner[place]
            inner[last] = value
        return json.dumps(document).encode()

    return change


def _header(text: str, length: int | None = None) -> Change:
    """A safetensors file with this header."""
    return _only(struct.pack("<Q", len(text) if length is None else length) + text.encode() + bytes(64))


def _special() -> Iterator[tuple[str, str, Change]]:
    """Kind, name and change of cases that mutations hardly find."""
    for kind in KINDS:
        for name, content in _bombs():
            if kind not in ("scheme", "codes", "config") or "JSON" in name:
                yield kind, name, _only(content)
    for name in ("hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size", "num_attention_heads"):
        for value in (10**12, -1, 0, "8", None, [8], 10**30, True):
            yield "hub", f"{name} {value!r}", _in_json(**{name: value})
    for name in ("dim", "num_layers", "vocab_size", "ffn_dim", "num_heads", "layer_norm_eps"):
        for value in (10**12, -1, "8", float("nan")):
            yield "config", f"{name} {value!r}", _in_json(**{f"config__{name}": value})
    entry = '{"dtype":"F32","shape":[%s],"data_offsets":[%s]}'
    for shape, offsets in (("-4", "0,16"), ("4", "16,0"), ("1000000000000,1000000000000", "0,64"), ("16", "0,2**60")):
        yield "weights", f"shape {shape}", _header('{"a":' + entry % (shape, offsets) + "}")
    yield "weights", "overlapping", _header('{"a":' + entry % ("8", "0,32") + ',"b":' + entry % ("8", "16,48") + "}")
    for length in (2**63, 2**40, 2**32, 0):
        yield "weights", f"header of {length} bytes", _header("{}", length)
    for text in (
        "name: x\nkinds: {linear_weight: {format: uniform, bits: .nan}}\n",
        "kinds: {linear_weight: {format: uniform, bits: 4, granularity: group, group_size: 1000000000000}}\n",
        "sites: {'re:([a-z.0-9_]+)+$$X': null}\n",
        "exclude: ['re:(a|a)*b']\nsites: {'*.weight': {format: uniform, bits: 1000000}}\n",
        "calibration: {lengths: 5, top_k: .inf}\n",
        "kinds: {linear_weight: {format: uniform, bits: 8}}\nsteps: [{step: gptq, block: 0}]\n",
        "kinds: {linear_weight: {format: uniform, bits: 8}}\nsteps: [{step: gptq, damping: .nan}]\n",
        "kinds: {linear_weight: {format: uniform, bits: 4}}\nsteps: [{step: rotation, seed: 1.0e+400}]\n",
        "name: ${oc.env:HOME}\ndescription: !!python/object/apply:os.system [id]\n",
        "name: ../../../tmp/x\nkind: {}\n",
    ):
        yield "recipe", text[:60].replace("\n", " "), _only(text.encode())
    yield "mmcif", "a name of a megabyte", lambda data, _: data.replace(b" CA ", b" " + b"C" * 2**20 + b" ", 1)
    yield "pdb", "20,000 molecules of one name", lambda data, _: (data.split(b"\nTER")[0] + b"\nTER\n") * 600


def cases(count: int, seed: int) -> Iterator[Case]:
    """Return so many cases: the special ones, from the first of each kind on, and mutations of valid files."""
    random = Random(seed)
    special = [
        Case(case.kind, name, *(case.file, case.content, case.command, case.beside))
        for kind, name, change in _special()
        for case in [next(iter(KINDS[kind](change, random)))]
    ]
    random.shuffle(special)
    given = special[: count // 3]
    kinds = [kind for kind, share in _SHARES.items() for _ in range(share)]
    while len(given) < count:
        kind = random.choice(kinds)
        change = _CHANGES.get(kind, mutate)
        made = list(KINDS[kind](change, random))
        given.append(random.choice(made))
    yield from given


def main() -> int:
    """Run the cases, print what was wrong and a summary."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--count", type=int, default=500)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--keep", type=Path, help="folder for the files that ended badly")
    options = arguments.parse_args()
    counts: Counter[str] = Counter()
    longest, largest = 0.0, 0
    with tempfile.TemporaryDirectory(prefix="protquant-malformed-") as name:
        folder = Path(name)
        warm_up(folder)
        for number, case in enumerate(cases(options.count, options.seed)):
            outcome = run(case, folder)
            longest, largest = max(longest, outcome.seconds), max(largest, outcome.peak)
            counts["taken" if outcome.code == 0 else "some records failed" if outcome.code == 1 else "refused"] += 1
            if number % 50 == 49:
                print(f"{number + 1} of {options.count}; at most {longest:.1f} s", flush=True)
            if outcome.fault:
                counts["faults"] += 1
                said = "\n    ".join(outcome.output.strip().splitlines()[-4:])
                print(
                    f"{number} {case.kind} {case.what}: {outcome.fault}: {' '.join(case.command)}\n    {said}",
                    flush=True,
                )
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{number}-{Path(case.file).name}").write_bytes(case.content)
    print(f"{options.count} files: {dict(counts)}; at most {longest:.1f} s and {largest / 2**30:.2f} GiB")
    return int(counts["faults"] > 0)


if __name__ == "__main__":
    sys.exit(main())
