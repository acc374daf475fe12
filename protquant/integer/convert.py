"""From a quantized model, which simulates, to one that runs on integers."""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from protquant.errors import ProtquantError
from protquant.integer.block import IntegerFoldingBlock
from protquant.integer.blocks import IntegerBlocks
from protquant.integer.language_model import IntegerESM2, integer_language_model
from protquant.integer.linear import IntegerLinear
from protquant.integer.linear_twin import PartRow, linear_twin
from protquant.integer.pair_stream import SimulatedCodec
from protquant.integer.recording import Recorder
from protquant.kernels.backend import Backend, Linear
from protquant.kernels.dispatch import choose_backend
from protquant.models import ESM2, add_to_lineage
from protquant.models.trunk import FoldingBlock, FoldingBlocks
from protquant.quant.modules import ActivationQuantizer, QuantizedLayerNorm, QuantizedLinear

__all__ = ["Support", "SupportRow", "prepared_layers", "to_integer"]

_Model = TypeVar("_Model", bound=nn.Module)
Runs = Literal["integer", "simulated"]


@dataclass(frozen=True)
class SupportRow:
    """What a part of the model runs on.

    Attributes
    ----------
    path : str
        Of the module.
    runs : str
        `integer`, or `simulated`: quantized and dequantized in float.
    what : str
        The kernel, or why there is none.
    """

    path: str
    runs: Runs
    what: str


@dataclass
class Support:
    """What runs on integers, and what does not.

    Attributes
    ----------
    rows : list of SupportRow
    backend : Backend
        Counts its calls.
    weight_bytes : int
        Of integer weights in memory: codes, scales and zero points.
    weight_elements : int
        How many weights these are.
    """

    rows: list[SupportRow]
    backend: Backend
    weight_bytes: int = 0
    weight_elements: int = 0

    def add(self, rows: Iterable[PartRow]) -> None:
        """Tell of more parts."""
        self.rows += [
            SupportRow(path, "integer" if runs == "integer" else "simulated", what) for path, runs, what in rows
        ]

    @property
    def simulated(self) -> list[SupportRow]:
        """Rows of what is not on integers."""
        return [row for row in self.rows if row.runs == "simulated"]

    @property
    def ran(self) -> Runs:
        """`integer` where any part is on integers."""
        return "integer" if len(self.simulated) < len(self.rows) else "simulated"

    @property
    def kernels(self) -> str:
        """What multiplies, and how many parts are simulated."""
        simulated = f"; {len(self.simulated)} of {len(self.rows)} parts simulated" if self.simulated else ""
        return self.backend.kernel + simulated

    def summary(self) -> str:
        """One line for people and tables."""
        text = f"{len(self.rows) - len(self.simulated)} of {len(self.rows)} parts on integers ({self.backend.kernel})"
        if self.simulated:
            text += f"; simulated in float: {self.simulated[0].path} ({self.simulated[0].what})"
            text += f" and {len(self.simulated) - 1} more" if len(self.simulated) > 1 else ""
        return text

    def to_dicts(self) -> list[dict[str, Any]]:
        """Plain rows."""
        return [vars(row) for row in self.rows]


def to_integer(model: _Model, backend: str | Backend = "auto", *, inplace: bool = False) -> tuple[_Model, Support]:
    """Let a quantized model run on integers.

    Linear layers whose weight and input have integer codes multiply these; blocks of the folding trunk and layers of
    the language model are on codes as a whole, and update what they are given in place. What has no integer kernel
    stays simulated, and is named in what comes back.

    Parameters
    ----------
    model : nn.Module
        Of `quantize`, or of a quantized checkpoint; on the device that it is to run on: it is not moved afterwards.
    backend : str or Backend
        `auto`, `reference`, `cpu` or `triton`.
    inplace : bool
        Whether to change `model` itself, which spares the memory of a copy.

    Raises
    ------
    ProtquantError
        Where the model is not quantized, or is on integers already, a folding trunk is not in float32, or the backend
        does not run here.
    """
    if not any(isinstance(m, QuantizedLinear | QuantizedLayerNorm | ActivationQuantizer) for m in model.modules()):
        raise ProtquantError("the model is not quantized: quantize it by a recipe, then it can run on integers")
    if any(isinstance(m, IntegerLinear | IntegerFoldingBlock | IntegerESM2) for m in model.modules()):
        raise ProtquantError(
            "the model runs on integers already; quantize with execution='simulate' for another backend"
        )
    for path, block in _of_type(model, FoldingBlock):
        other = {str(p.dtype).removeprefix("torch.") for p in block.parameters() if p.dtype != torch.float32}
        if other:
            raise ProtquantError(
                f"{path or 'the block'} is in {min(other)}: beside integers a folding trunk has floats of 32 bits; "
                "load the model so (--dtype float32)"
            )
    if isinstance(backend, str):
        parameter = next(model.parameters(), None)
        if parameter is None:
            raise ProtquantError("the model has no parameters")
        try:
            backend = choose_backend(backend, parameter.device)
        except ValueError as error:
            raise ProtquantError(str(error)) from None
    if not inplace:
        model = copy.deepcopy(model)
    support = Support([], backend)
    if isinstance(model, FoldingBlock | FoldingBlocks):
        holder = nn.ModuleDict({"block": model})
        _convert(holder, backend, support)
        return holder["block"], support  # type: ignore[return-value]
    if isinstance(model, ESM2):
        twin = _language_twin(model, backend, "", support)
        _convert(twin, backend, support)
        return twin.eval(), support  # type: ignore[return-value]
    _convert(model, backend, support)
    return model.eval(), support


def _convert(model: nn.Module, backend: Backend, support: Support) -> None:
    for path, language_model in _of_type(model, ESM2):
        if path:
            model.set_submodule(path, _language_twin(language_model, backend, path, support))
    _convert_trunk(model, backend, support)
    told = {row.path for row in support.rows}
    rows = list[PartRow]()
    for path, layer in _of_type(model, QuantizedLinear):
        if path not in told:
            model.set_submodule(path, linear_twin(layer, backend, path, rows))
    support.add(rows)
    for layer in prepared_layers(model):
        support.weight_bytes += layer.nbytes
        support.weight_elements += layer.weight.out_features * layer.weight.in_features
    add_to_lineage(model, execution=support.ran, kernels=support.kernels)


def _convert_trunk(model: nn.Module, backend: Backend, support: Support) -> None:
    for path, block in _of_type(model, FoldingBlock):
        twin = IntegerFoldingBlock(block, backend, path)
        for name in twin.on_integers:
            support.rows.append(SupportRow(f"{path}.{name}", "integer", backend.kernel))
        model.set_submodule(path, twin)
        for name, codec in twin.codecs.items():
            if codec is not None:
                runs: Runs = "simulated" if isinstance(codec, SimulatedCodec) else "integer"
                support.rows.append(SupportRow(f"{path}.pair_residual.{name}", runs, f"kept in {codec.what}"))
        for where, reason in twin.left.items():
            support.rows.append(SupportRow(where, "simulated", f"not as a whole: {reason}"))
    for path, blocks in _of_type(model, FoldingBlocks):
        if path:
            model.set_submodule(path, IntegerBlocks(blocks, Recorder(backend.calls)))


def _language_twin(model: ESM2, backend: Backend, path: str, support: Support) -> ESM2:
    # What a trunk reads is not rounded further: that costs 0.005 angstrom, and a trunk takes most of the time.
    twin, rows = integer_language_model(model, backend, path, torch.float32 if path else None, consume=True)
    support.add(rows)
    return twin


def _of_type(model: nn.Module, kind: type[nn.Module]) -> Iterator[tuple[str, Any]]:
    # By their paths, so that what has been replaced is not kept alive here.
    for path in [path for path, module in model.named_modules() if isinstance(module, kind)]:
        yield path, model.get_submodule(path)


def prepared_layers(model: nn.Module) -> Iterator[Linear]:
    """Linear layers of a backend that hang anywhere in a converted model, each once."""
    seen: set[int] = set()

    def inside(thing: Any) -> Iterator[Linear]:
        if id(thing) in seen:
            return
        seen.add(id(thing))
        if isinstance(thing, Linear):
            yield thing
        elif hasattr(thing, "__dict__") and type(thing).__module__.startswith("protquant.integer"):
            for value in vars(thing).values():
                yield from inside(value)

    for module in model.modules():
        yield from inside(module)
