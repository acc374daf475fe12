"""Load a model and fold with it, in a process of its own: the times and the memory of it, as one JSON document.

A script: `python -P worker.py '{"contender": ..., ...}'`. It imports nothing of protquant unless that is what it
measures, so that transformers is not charged for more than a user of transformers has.
"""

import importlib
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

Coordinates = list[list[float]]
Fold = Callable[[str], Coordinates]
# Both packages import a part of themselves only when it is asked for.
_IMPORTS = {
    "transformers": ("transformers", ["EsmForProteinFolding"]),
    "protquant": ("protquant", ["load", "to_integer", "fold"]),
}
_PROCESS = Path("/proc/self")
_RESET_PEAK = "5"  # proc(5), clear_refs


def transformers_float32(folder: str, num_recycles: int, device: str) -> tuple[Fold, dict[str, Any]]:
    """As the released checkpoint says: the language model in half precision, the rest in float32."""
    return _transformers(folder, num_recycles, device, torch.float32, None)


def transformers_bfloat16(folder: str, num_recycles: int, device: str) -> tuple[Fold, dict[str, Any]]:
    """All in bfloat16; what a user gets who asks for that type and casts the language model too."""
    return _transformers(folder, num_recycles, device, torch.bfloat16, torch.bfloat16)


def _transformers(
    folder: str, num_recycles: int, device: str, dtype: torch.dtype, everywhere: torch.dtype | None
) -> tuple[Fold, dict[str, Any]]:
    from transformers.models.esm.modeling_esmfold import (  # noqa: PLC0415 (each contender imports its own)
        EsmForProteinFolding,
        residue_constants,
    )

    model = EsmForProteinFolding.from_pretrained(folder, dtype=dtype).eval()
    if everywhere is not None:
        model = model.to(everywhere)
    model = model.to(device)
    number: Mapping[str, int] = residue_constants.restype_order_with_x

    def fold(sequence: str) -> Coordinates:
        residues = torch.tensor([[number[letter] for letter in sequence]], device=device)
        with torch.no_grad():
            output = model(residues, num_recycles=num_recycles)
        # The last layer of the structure module; N, CA and C are the first three of 14 atoms.
        coordinates: Coordinates = output.positions[-1, 0, :, 1].float().tolist()
        return coordinates

    types = {"language model": _types(model.esm), "trunk": _types(model.trunk.blocks)}
    return fold, {"types": types}


def protquant_float(folder: str, num_recycles: int, device: str) -> tuple[Fold, dict[str, Any]]:
    """A float checkpoint, in float32."""
    return _protquant(folder, num_recycles, device, integer=False)


def protquant_integer(folder: str, num_recycles: int, device: str) -> tuple[Fold, dict[str, Any]]:
    """A quantized checkpoint, on integers."""
    return _protquant(folder, num_recycles, device, integer=True)


def _protquant(folder: str, num_recycles: int, device: str, *, integer: bool) -> tuple[Fold, dict[str, Any]]:
    import protquant as pq  # noqa: PLC0415 (each contender imports its own)

    model = pq.load(folder, device=device)
    told: dict[str, Any] = {}
    if integer:
        model, support = pq.to_integer(model, inplace=True)
        told = {
            "support": support.summary(),
            "weight_bytes": support.weight_bytes,
            "weight_elements": support.weight_elements,
            "simulated": sorted(row.path for row in support.simulated),
        }

    def fold(sequence: str) -> Coordinates:
        atoms = pq.fold(model, sequence, num_recycles=num_recycles).atoms  # type: ignore[arg-type]  # said by itself
        coordinates: Coordinates = atoms.coord[atoms.atom_name == "CA"].tolist()
        return coordinates

    return fold, told


CONTENDERS: dict[str, Callable[[str, int, str], tuple[Fold, dict[str, Any]]]] = {
    "transformers-float32": transformers_float32,
    "transformers-bfloat16": transformers_bfloat16,
    "protquant-float32": protquant_float,
    "protquant-integer": protquant_integer,
}


def measure(
    contender: str,
    folder: str,
    sequences: list[str],
    *,
    threads: int,
    num_recycles: int = 0,
    warm_up: str = "",
    device: str = "cpu",
    turns: int = 1,
) -> dict[str, Any]:
    """Load, and fold one sequence after the other.

    Parameters
    ----------
    contender : str
        One of `CONTENDERS`.
    warm_up : str
        A sequence that is folded before, because much of the weights may be read from disk only when they are first
        used; empty for none.
    device : str
        `cpu` or `cuda`.
    turns : int
        How often each sequence is folded.

    Returns
    -------
    dict
        `contender threads device import_seconds imported load_seconds loaded warm_up_seconds folds types ...`.
        `imported` and `loaded` are `resident anonymous` in bytes, after importing and after loading; `loaded` has the
        `peak` of loading too, and on a GPU `on_device`, the bytes of tensors there. Each of `folds` has `residues
        seconds cpu_seconds all_seconds peak reserved coordinates`: the seconds of the last turn and of all of them, and
        the peak of all: of resident memory, on a GPU of tensors there, and then `reserved`, what torch had taken for
        them.
    """
    torch.set_num_threads(threads)
    started = time.perf_counter()
    _import(*_IMPORTS[contender.partition("-")[0]])
    import_seconds = time.perf_counter() - started
    imported = _memory()
    resets = _reset_peak()
    started = time.perf_counter()
    fold, told = CONTENDERS[contender](folder, num_recycles, device)
    _finish(device)
    load_seconds = time.perf_counter() - started
    loaded = _memory() | {"peak": _bytes("VmHWM") if resets else None}
    if device == "cuda":
        loaded["on_device"] = torch.cuda.memory_allocated()
    _say(f"loaded {contender} after {load_seconds:.1f} s")
    warm_up_seconds = None
    if warm_up:
        started = time.perf_counter()
        fold(warm_up)
        warm_up_seconds = time.perf_counter() - started
        _say(f"warmed up with {len(warm_up)} residues in {warm_up_seconds:.1f} s")
    folds = []
    for sequence in sequences:
        begin_peak, peaks = _PEAKS[device]
        begun = begin_peak()
        all_seconds = []
        for _ in range(turns):
            started, started_cpu = time.perf_counter(), time.process_time()
            coordinates = fold(sequence)
            _finish(device)
            all_seconds.append(time.perf_counter() - started)
            cpu_seconds = time.process_time() - started_cpu
        folds.append(
            {
                "residues": len(sequence),
                "seconds": all_seconds[-1],
                "cpu_seconds": cpu_seconds,
                "all_seconds": all_seconds,
                **(peaks() if begun else {"peak": None}),
                "coordinates": coordinates,
            }
        )
        _say(f"{len(sequence)} residues in {all_seconds[-1]:.2f} s")
    return {
        "contender": contender,
        "threads": threads,
        "device": device,
        "import_seconds": import_seconds,
        "imported": imported,
        "load_seconds": load_seconds,
        "loaded": loaded,
        "warm_up_seconds": warm_up_seconds,
        "folds": folds,
        **told,
    }


def _import(package: str, names: list[str]) -> None:
    module = importlib.import_module(package)
    for name in names:
        getattr(module, name)


def _types(module: torch.nn.Module) -> list[str]:
    return sorted({str(each.dtype).removeprefix("torch.") for each in module.parameters()})


def _memory() -> dict[str, int | None]:
    return {"resident": _bytes("VmRSS"), "anonymous": _bytes("RssAnon")}


def _bytes(field: str) -> int | None:
    """Bytes; None where the system does not tell."""
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", (_PROCESS / "status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _reset_peak() -> bool:
    """Let the peak begin anew; False where the system does not, so that there is none."""
    try:
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _begin_peak_on_gpu() -> bool:
    torch.cuda.empty_cache()  # what is reserved then is what this protein asks for
    torch.cuda.reset_peak_memory_stats()
    return True


def _peaks_on_gpu() -> dict[str, int | None]:
    return {"peak": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}


_PEAKS: dict[str, tuple[Callable[[], bool], Callable[[], dict[str, int | None]]]] = {
    "cpu": (_reset_peak, lambda: {"peak": _bytes("VmHWM")}),
    "cuda": (_begin_peak_on_gpu, _peaks_on_gpu),
}


def _finish(device: str) -> None:
    """Wait until a device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main() -> None:
    """Do what the first argument says."""
    # Whatever a library prints must not end up in the document.
    answer, sys.stdout = sys.stdout, sys.stderr
    json.dump(measure(**json.loads(sys.argv[1])), answer)


if __name__ == "__main__":
    main()
