"""Rotation of residual streams (QuaRot, Ashkboos et al. 2024): outliers of few channels are spread over all of them.

A stream x is kept as x Q, with Q orthogonal: what enters is turned by a module, what layers add by their weights, what
leaves is turned back. Layers read it through a LayerNorm, whose gain and bias go to the weights and biases of its
readers first; what is left of it is a length, which no rotation changes, and the mean over channels. QuaRot removes the
mean from all that is added ("baked in"). That is exact only where nobody misses it: ESM-2's final LayerNorm, and that
behind ESMFold's layer mix, subtract it anyway, but the distogram and the structure module read the trunk as it is. So
by default the mean is carried: x Q has it along the known direction (1, ..., 1) Q, and the norm subtracts that.

What it costs when the model runs, for vectors of c channels (`Rotation.multiplications`): one product with Q for each
vector that enters or leaves through a module, that is for ESM-2 once at either end and, where ESMFold asks for the
hidden states of all layers, once for each of them; for the pair stream of the trunk beside its ends the update of each
of the two triangle multiplications of a block, because gates lie behind their projections. One dot product of c for
every carried mean. Biases for readers that had none. `inputs` costs one product for every vector that the layer reads.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from protquant.errors import ProtquantError
from protquant.quant.assignments import Assignments
from protquant.quant.patterns import PatternText, matches_any
from protquant.quant.rotations import CenterVectors, RotatedNorm, Rotation, random_rotation
from protquant.quant.steps.base import ModelTransform, register_step
from protquant.quant.transforms import LinkLayers
from protquant.topology import Link, Stream, find_links, find_streams

__all__ = ["RotateStreams"]

_FOLDED = "folded into the layers that read it, by rotation"

_logger = logging.getLogger(__name__)


@register_step("rotation")
@dataclass(frozen=True)
class RotateStreams(ModelTransform):
    """Rotate by randomized Hadamard matrices; by random orthogonal ones, with a warning, where a size has none.

    Attributes
    ----------
    streams : tuple of str
        Patterns of the entries of residual streams (`stream_entry` of ESM2; `lm.stream_entry`, `trunk.single_entry` and
        `trunk.pair_entry` of ESMFold) that are rotated.
    mean : str
        `carried` in the stream, or `baked` into what is added to it where nobody reads it (`Stream.mean_is_read`) and
        carried elsewhere. Baked, the hidden states that an ESM2 returns lack their mean over channels.
    values : bool
        Whether attention's values are rotated too, head by head, where nothing lies between their projection and the
        next; the gates of ESMFold's trunk do. Costs nothing.
    inputs : tuple of str
        Patterns of linear layers, such as `*.down_proj`, whose input is rotated when the model runs. Exact anywhere.
    seed : int
    """

    streams: tuple[PatternText, ...] = ("*",)
    mean: Literal["carried", "baked"] = "carried"
    values: bool = True
    inputs: tuple[PatternText, ...] = ()
    seed: int = 0

    @torch.no_grad()
    def apply(self, model: nn.Module, assignments: Assignments) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        links = list(find_links(model))
        of_norm = {link.writer: link for link in links}
        known = list(find_streams(model))
        chosen = [stream for stream in known if any(matches_any(entry, self.streams) for entry in stream.entries)]
        if self.streams and not chosen:
            entries = ", ".join(stream.entries[0] for stream in known) or "none"
            raise ProtquantError(f"rotation: {list(self.streams)} match no residual stream; the model has {entries}")
        for stream in chosen:
            self._rotate_stream(model, stream, of_norm, assignments, generator)
        for link in (link for link in links if self.values and link.mixable):
            _rotate_values(model, link, generator)
        for path in self._inputs(model, assignments):
            layer = model.get_submodule(path)
            assert isinstance(layer, nn.Linear)
            rotation = _draw(layer.in_features, generator, f"the input of {path}").to(layer.weight.dtype)
            LinkLayers(model, Link((path,))).prepend(rotation)

    def _rotate_stream(
        self,
        model: nn.Module,
        stream: Stream,
        of_norm: Mapping[str | None, Link],
        assignments: Assignments,
        generator: torch.Generator,
    ) -> None:
        rotation = _draw(stream.dim, generator, f"the stream of {stream.entries[0]}")
        baked = self.mean == "baked" and not stream.mean_is_read
        like = model.get_submodule(stream.writers[0]).weight
        assert isinstance(like, Tensor)
        direction = None if baked else rotation(torch.full((stream.dim,), stream.dim**-0.5, dtype=torch.float64))
        for path in stream.norms:
            norm = model.get_submodule(path)
            assert isinstance(norm, nn.LayerNorm), path
            for reader in of_norm[path].readers:
                _fold_norm(_linear(model, reader), norm, rotation)
            model.set_submodule(path, RotatedNorm(norm, None if direction is None else direction.to(like)))
            assignments.set_format(f"{path}.weight", None, _FOLDED)
        for path in stream.writers:
            layer = _linear(model, path)
            _set(layer, weight=_turned(layer.weight.T, rotation, baked).T)
            if layer.bias is not None:
                _set(layer, bias=_turned(layer.bias, rotation, baked))
        for path in stream.entries:
            entry = rotation.copied().to(like)
            model.set_submodule(path, nn.Sequential(CenterVectors(), entry) if baked else entry)
        for path in stream.exits:
            model.set_submodule(path, rotation.copied(inverse=True).to(like))
        _logger.info(
            "rotation: the stream of %s (%d channels) costs %d multiplications for each vector at %d entries and %d "
            "exits%s",
            stream.entries[0],
            stream.dim,
            rotation.multiplications,
            len(stream.entries),
            len(stream.exits),
            "" if baked else f", and {stream.dim} more at each of {len(stream.norms)} norms",
        )

    def _inputs(self, model: nn.Module, assignments: Assignments) -> list[str]:
        """Linear layers of `inputs`; those that the recipe leaves in float are left alone."""
        linears = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
        matching = [path for path in linears if matches_any(path, self.inputs)]
        if self.inputs and not matching:
            raise ProtquantError(f"rotation: inputs {list(self.inputs)} match no linear layer")
        chosen = [path for path in matching if assignments.weight_format(path) or assignments.input_format(path)]
        for link in find_links(model):
            # What the first of a link reads counts for all in the steps to come.
            left = [path for path in link.readers if path not in chosen]
            if left and len(left) < len(link.readers):
                raise ProtquantError(
                    f"rotation: inputs {list(self.inputs)} match some of the layers that read one tensor, and not "
                    f"{', '.join(left)}; name all of them, or none"
                )
        return chosen


def _draw(size: int, generator: torch.Generator, what: str) -> Rotation:
    rotation = random_rotation(size, generator)
    if not rotation.is_hadamard:
        _logger.warning(
            "no Hadamard matrix of size %d is known here: %s is rotated by a random orthogonal one, which costs %d "
            "multiplications for each vector that is rotated when the model runs",
            size,
            what,
            rotation.multiplications,
        )
    return rotation


def _linear(model: nn.Module, path: str) -> nn.Linear:
    layer = model.get_submodule(path)
    assert isinstance(layer, nn.Linear), path
    return layer


def _set(layer: nn.Linear, **values: Tensor) -> None:
    for name, value in values.items():
        trained = layer.weight.requires_grad
        setattr(layer, name, nn.Parameter(value.to(layer.weight, copy=True).contiguous(), requires_grad=trained))


def _turned(x: Tensor, rotation: Rotation, baked: bool) -> Tensor:
    x = x.double().cpu()
    return rotation.forward(x - x.mean(-1, keepdim=True) if baked else x)


def _fold_norm(reader: nn.Linear, norm: nn.LayerNorm, rotation: Rotation) -> None:
    """W (gain * x + bias) + b becomes W' (x Q) + b'."""
    weight = reader.weight.double().cpu()
    if norm.bias is not None:
        shift = weight @ norm.bias.double().cpu()
        _set(reader, bias=shift if reader.bias is None else reader.bias.double().cpu() + shift)
    _set(reader, weight=rotation(weight if norm.weight is None else weight * norm.weight.double().cpu()))


def _rotate_values(model: nn.Module, link: Link, generator: torch.Generator) -> None:
    assert link.writer is not None
    writer = _linear(model, link.writer)
    rotation = _draw(link.mixable, generator, f"the values of {link.writer}")

    def turned(x: Tensor) -> Tensor:
        """Vectors along the last axis, head by head."""
        return rotation.forward(x.double().cpu().unflatten(-1, (-1, link.mixable))).flatten(-2)

    _set(writer, weight=turned(writer.weight.T).T)
    if writer.bias is not None:
        _set(writer, bias=turned(writer.bias))
    for path in link.readers:
        reader = _linear(model, path)
        _set(reader, weight=turned(reader.weight))
