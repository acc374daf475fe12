"""Compile kernels for a GPU that is not present, and read registers and instructions from the machine code."""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from protquant.kernels.triton.tiles import TARGETS
from protquant.kernels.triton.variant import Variant
from protquant.kernels.triton.variants_elementwise import variants_of_elementwise
from protquant.kernels.triton.variants_linear import variants_of_linears
from protquant.kernels.triton.variants_triangle import variants_of_triangle

__all__ = ["CompiledKernel", "Variant", "compile_variant", "variants"]

_GPU = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
_MATRIX_INSTRUCTION = re.compile(r"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma|v_s?mfmac?_)[\w.:]*")
# Instructions that multiply int8 by int8 into int32 on the matrix units.
_INT8_INSTRUCTION = re.compile(r"mma.*\.s32\.[su]8\.[su]8|tcgen05\.mma.*kind::i8|v_mfma_i32_.*i8")


@dataclass(frozen=True)
class CompiledKernel:
    """Facts from the machine code of a variant.

    Attributes
    ----------
    registers : int
        Number of registers per thread; vector registers on AMD.
    spill_bytes : int
        Bytes per thread that do not fit into registers and go to memory. Scalars that AMD's compiler stores in lanes
        of vector registers do not count: they stay on the chip.
    shared_bytes : int
        Bytes of shared memory per block.
    instructions : tuple of str
        The matrix instructions, each once.
    problem : str or None
        Why the variant is unusable; None if it is usable.
    """

    name: str
    target: str
    registers: int
    spill_bytes: int
    shared_bytes: int
    instructions: tuple[str, ...]
    problem: str | None


def variants(target: str) -> Iterator[Variant]:
    """Yield all kernels in all types that are used, with the tiles of `target`."""
    yield from variants_of_linears(target)
    yield from variants_of_triangle(target)
    yield from variants_of_elementwise(target)


def compile_variant(variant: Variant, target: str) -> CompiledKernel:
    """Compile for one of `TARGETS`; no GPU is needed.

    Raises
    ------
    RuntimeError
        If triton interprets kernels (TRITON_INTERPRET is set).
    ValueError
        If the target is not known, or if the variant gives an argument of the kernel neither a type nor a value.
    """
    if target not in TARGETS:
        raise ValueError(f"target {target!r} is none of {', '.join(TARGETS)}")
    if not isinstance(variant.kernel, triton.JITFunction):
        raise RuntimeError("kernels are interpreted, not compiled: unset TRITON_INTERPRET")  # noqa: TRY004 (a setting)
    if missing := [name for name in variant.kernel.arg_names if name not in {**variant.types, **variant.settings}]:
        raise ValueError(f"variant {variant.name!r}: neither types nor settings have {', '.join(missing)}")
    types = {name: variant.types.get(name, "constexpr") for name in variant.kernel.arg_names}
    constants = {(variant.kernel.arg_names.index(name),): value for name, value in variant.settings.items()}
    # At run time, triton compiles for addresses and sizes that are multiples of 16, as these are.
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(variant.kernel.arg_names)
        if types[name].startswith("*") or name in variant.aligned
    }
    gpu = _GPU[target]
    source = ASTSource(variant.kernel, types, constants, aligned)
    compiled = triton.compile(source, target=gpu, options=dict(variant.options))
    if gpu.backend == "cuda":
        assembly = compiled.asm["ptx"]
        registers, spills = _nvidia_resources(assembly, gpu.arch)
    else:
        assembly = compiled.asm["amdgcn"]
        registers, spills = _amd_resources(assembly)
    found = tuple(sorted(set(_MATRIX_INSTRUCTION.findall(assembly))))
    problems = []
    if variant.integer and not any(_INT8_INSTRUCTION.search(name) for name in found):
        problems.append("no int8 matrix instruction")
    if spills:
        problems.append(f"spills {spills} bytes")
    return CompiledKernel(
        variant.name, target, registers, spills, compiled.metadata.shared, found, "; ".join(problems) or None
    )


def _nvidia_resources(ptx: str, arch: int) -> tuple[int, int]:
    """Return registers, and bytes of spilled stores and loads, that ptxas reports."""
    from triton.backends.nvidia.compiler import get_ptxas  # noqa: PLC0415 (a part of triton for NVIDIA)

    name = re.search(r"^\.target\s+(\w+)", ptx, re.MULTILINE)
    assert name is not None
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [get_ptxas(arch).path, "-v", f"--gpu-name={name[1]}", str(source), "-o", f"{source}.cubin"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr  # noqa: S603 (triton's own)
    registers = re.search(r"Used (\d+) registers", said)
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    if registers is None or spilled is None:
        raise RuntimeError(f"ptxas says nothing of registers: {said}")
    return int(registers[1]), int(spilled[1]) + int(spilled[2])


def _amd_resources(assembly: str) -> tuple[int, int]:
    """Return vector registers, and their spilled bytes, from the metadata of the code."""
    facts = {name: int(value) for name, value in re.findall(r"^\s*\.(\w+):\s+(\d+)$", assembly, re.MULTILINE)}
    return facts["vgpr_count"], 4 * facts["vgpr_spill_count"] + facts["private_segment_fixed_size"]
