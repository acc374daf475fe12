"""Names of the choices that benchmarks offer; nothing here needs torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from protquant.checkpoints.registry import KNOWN
from protquant.demo.sizes import FOLDING_MODEL, LANGUAGE_MODEL
from protquant.errors import ProtquantError, suggestion
from protquant.kernels.backend_names import BACKENDS
from protquant.models import ESM2Config, ESMFoldConfig, TrunkConfig

__all__ = [
    "BACKENDS",
    "DEFAULT_LM_BASELINES",
    "FULL_SIZE_PARTS",
    "LINEAR_SHAPES",
    "LM_BASELINES",
    "LM_PRESETS",
    "TRUNK_BASELINES",
    "TRUNK_PRESETS",
    "WORKLOADS",
    "LinearShape",
    "Workload",
    "check_backend",
    "check_names",
]

FULL_SIZE_PARTS = ("quantize", "fold", "turns")
"""Parts of `bench full-size`."""

LM_PRESETS: dict[str, ESM2Config] = {"demo": LANGUAGE_MODEL} | {
    name: known.config for name, known in KNOWN.items() if isinstance(known.config, ESM2Config)
}
"""Sizes of language models by name."""

TRUNK_PRESETS: dict[str, TrunkConfig] = {"demo": FOLDING_MODEL.trunk} | {
    name: known.config.trunk for name, known in KNOWN.items() if isinstance(known.config, ESMFoldConfig)
}
"""Sizes of folding trunks by name."""

LM_BASELINES: Mapping[str, str] = MappingProxyType(
    {
        "transformers-float32-eager": "EsmForMaskedLM, padded",
        "transformers-float32-sdpa": "EsmForMaskedLM, padded",
        "transformers-bfloat16-eager": "EsmForMaskedLM, padded",
        "transformers-bfloat16-sdpa": "EsmForMaskedLM, padded",
        "fair-esm-float32": "fair-esm's ESM2, padded",
        "torchao-int8": "transformers' EsmForMaskedLM, eager torchao: int8 weights, int8 activations by token",
        "esm-cpp-w8a8": "packed; SmoothQuant, in a process of its own",
        "protquant-float32": "our float model, padded",
        "protquant-bfloat16": "our float model, padded",
    }
)
"""Other ways to run a language model, with a description of each."""
DEFAULT_LM_BASELINES = ("transformers-float32-eager", "transformers-bfloat16-sdpa", "esm-cpp-w8a8")

TRUNK_BASELINES = ("transformers-float32", "transformers-bfloat16", "protquant-float32", "protquant-bfloat16")
"""Other ways to run a block of the trunk."""

Workload = Literal["uniform", "ragged"]
WORKLOADS: Mapping[Workload, str] = MappingProxyType(
    {
        "uniform": "8 sequences of 256 tokens",
        "ragged": "64 sequences of 50 to 400 residues",
    }
)
"""Workloads of language models, with a description of each."""


@dataclass(frozen=True)
class LinearShape:
    """Sizes of a linear layer: `rows` tokens, `reads` input channels, `writes` output channels."""

    what: str
    rows: int
    reads: int
    writes: int

    def __str__(self) -> str:
        return f"{self.what}: {self.rows} x {self.reads} -> {self.writes}"


LINEAR_SHAPES: Mapping[str, LinearShape] = MappingProxyType(
    {
        "lm": LinearShape("projection of ESM-2 3B, 256 tokens", 256, 2560, 2560),
        "lm-ffn": LinearShape("feed-forward of ESM-2 3B, 256 tokens", 256, 2560, 10240),
        "single": LinearShape("single representation, 256 residues", 256, 1024, 1024),
        "pair": LinearShape("pair representation, 256 residues", 65536, 128, 128),
        "pair-fused": LinearShape("five projections of the pair at once, 256 residues", 65536, 128, 640),
        "transition": LinearShape("pair transition, 256 residues", 65536, 128, 512),
    }
)
"""The linear layers that are timed, by name."""


def check_names(option: str, names: Iterable[str], known: Sequence[str]) -> None:
    """Raise ProtquantError for a name that is not known."""
    for name in names:
        if name not in known:
            raise ProtquantError(f"{option} {name}: not known; {suggestion(name, known)}")


def check_backend(backend: str) -> None:
    """Raise ProtquantError if there is no such backend."""
    if backend not in BACKENDS:
        raise ProtquantError(f"unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}")
