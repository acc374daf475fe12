"""Facts that determine the memory of folding, besides lengths: sizes and execution of the model."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from protquant.integer.block import IntegerFoldingBlock
from protquant.integer.language_model import IntegerESM2
from protquant.integer.support import prepared_layers
from protquant.kernels.backend import Backend
from protquant.models import ESM2, ESMFold, ESMFoldConfig
from protquant.quant.modules import ActivationQuantizer, QuantizedLayerNorm, QuantizedLinear
from protquant.sites import Kind

__all__ = ["DECODING", "Runs", "Setup", "copies_of"]

Runs = Literal["float", "simulated", "integer"]

_COPIES = {"float8": 2.3, "bfloat16": 1.5}
DECODING = 9
"""Bytes per element of a weight while it is decoded: unpacked codes, and floats before and after scaling."""
_FEW_COPIES = 1.2  # for formats that work in place or in blocks: the result, and scales of tokens or groups


@dataclass(frozen=True)
class Setup:
    """Sizes and execution of a model.

    Attributes
    ----------
    execution : str
        Execution of the language model and the blocks: `float`, `simulated` or `integer`.
    element : int
        Bytes per float of the language model and the trunk.
    copies : mapping
        For each kind of site, the number of additional tensors of its size at the peak of simulated quantization; 0 if
        the kind is not quantized.
    pair_bytes : int
        Bytes per element of the pair between updates, for integers.
    unpacked_layer : int
        Bytes of the unpacked or decoded weights of a layer of the language model while it runs.
    simulates_blocks : bool
        Whether, in an integer model, a part of a block that updates the pair is simulated.
    backend : Backend or None
        Backend of an integer model; otherwise None.
    """

    config: ESMFoldConfig
    execution: Runs = "float"
    element: int = 4
    copies: Mapping[Kind, float] = field(default_factory=lambda: defaultdict(float))
    pair_bytes: int = 4
    unpacked_layer: int = 0
    simulates_blocks: bool = False
    backend: Backend | None = None

    @property
    def has_chunks(self) -> bool:
        """Whether a chunk size has an effect; integer kernels choose their tiles themselves."""
        return self.execution != "integer" or self.simulates_blocks

    @classmethod
    def of(cls, model: ESMFold) -> "Setup":
        """Return the setup of a model that is in memory."""
        element = model.layer_mix.element_size()
        copies = _copies(model)
        widest = max(
            (m.out_features * m.in_features for m in model.modules() if isinstance(m, QuantizedLinear)), default=0
        )
        blocks = [block for block in model.trunk.blocks if isinstance(block, IntegerFoldingBlock)]
        if not blocks:
            runs: Runs = "simulated" if widest or any(copies.values()) else "float"
            return cls(model.config, runs, element, copies, unpacked_layer=DECODING * widest)
        zero = torch.zeros(1, 1, 1, device=model.device)
        codecs = [codec for block in blocks for codec in block.codecs.values() if codec is not None]
        return cls(
            model.config,
            "integer",
            element,
            copies,
            pair_bytes=min([element, *(codec.encode(zero).element_size() for codec in codecs)]),
            unpacked_layer=_unpacked_layer(model.lm),
            simulates_blocks=any(name.startswith(("tri_", "pair_")) for block in blocks for name in block.simulated),
            backend=model.lm.backend if isinstance(model.lm, IntegerESM2) else None,
        )


def copies_of(format_name: str) -> float:
    """Return the number of additional tensors of its size at the peak while a tensor is simulated in a format."""
    return _COPIES.get(format_name, _FEW_COPIES)


def _copies(model: nn.Module) -> Mapping[Kind, float]:
    """Return the largest number of copies for each kind of simulated activation."""
    copies: dict[Kind, float] = defaultdict(float)
    for path, module in model.named_modules():
        kind: Kind = "matmul_operand"
        quantizer: ActivationQuantizer | None = None
        if isinstance(module, QuantizedLinear):
            kind, quantizer = "linear_input", module.input_quantizer
        elif isinstance(module, QuantizedLayerNorm):
            kind, quantizer = "norm_input", module.input_quantizer
        elif isinstance(module, ActivationQuantizer) and not path.endswith(".input_quantizer"):
            kind, quantizer = _kind_of_tap(path), module
        if quantizer is not None:
            name = type(quantizer.quantizer).__name__.lower().removeprefix("dynamic").removesuffix("quantizer")
            copies[kind] = max(copies[kind], copies_of(name))
    return copies


def _kind_of_tap(path: str) -> Kind:
    if ".pair_residual." in path:
        return "residual"
    names: dict[str, Kind] = {"logits": "softmax_input", "probs": "softmax_output"}
    return names.get(path.rpartition(".")[2], "matmul_operand")


def _unpacked_layer(model: ESM2) -> int:
    if not isinstance(model, IntegerESM2) or not len(model.layers):
        return 0
    weights = [layer.weight for layer in prepared_layers(model.layers[0])]
    return model.backend.unpacked_bytes(
        [(8 if weight.kind == "int8" else 4, weight.out_features * weight.in_features) for weight in weights]
    )
