"""Rotation of residual streams (QuaRot, Ashkboos et al. 2024): outliers of few channels are spread over all channels.

The model computes x Q instead of a stream x, with Q orthogonal. A module rotates the vectors that enter the stream,
rotated weights of layers rotate the vectors that they add, and a module rotates back the vectors that leave it. Layers
read a stream through a LayerNorm, whose gain and bias are first folded into its readers. The rest of the LayerNorm
divides by a length, which no rotation changes, and subtracts the mean over channels. QuaRot subtracts the mean from all
vectors that are added ("baked in"). That is exact only if no reader needs the mean: ESM-2's final LayerNorm, and the
one after ESMFold's layer mix, subtract it anyway, but the distogram and the structure module read the trunk without a
LayerNorm. So by default the mean is carried: in x Q it lies along the known direction (1, ..., 1) Q, and the norm
subtracts it.

Cost at run time, for vectors of c channels: one product with Q (`Rotation.multiplications`) for each vector that enters
or leaves a stream through a module. In ESM-2 these are both ends of the stream, and the hidden states of all layers if
ESMFold needs them. In the pair stream of the trunk these are both ends and the updates of both triangle multiplications
of a block, because gates follow their projections. Each carried mean costs one dot product of size c. Readers without a
bias get one. `inputs` costs one product for every input vector of the layer.
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
    """Rotate streams by randomized Hadamard matrices, or with a warning by random orthogonal ones if a size has none.

    Attributes
    ----------
    streams : tuple of str
        Patterns of the entries of residual streams (`stream_entry` of ESM2; `lm.stream_entry`, `trunk.single_entry` and
        `trunk.pair_entry` of ESMFold) that are rotated.
    mean : str
        `carried`: the mean over channels stays in the stream. `baked`: it is subtracted from all vectors that are added
        to a stream, unless a layer reads it (`Stream.mean_is_read`). With `baked` the hidden states that an ESM2
        returns lack their mean over channels.
    values : bool
        Whether to rotate attention's values as well, head by head, at no cost. This needs an output projection that
        reads the values directly; in ESMFold's trunk gates come between.
    inputs : tuple of str
        Patterns of linear layers, such as `*.down_proj`, whose input is rotated at run time. It is exact for every
        layer.
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
            _set(layer, weight=_rotated(layer.weight.T, rotation, baked).T)
            if layer.bias is not None:
                _set(layer, bias=_rotated(layer.bias, rotation, baked))
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
        """Return the linear layers that `inputs` match, except those that the recipe leaves in float."""
        linears = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
        matching = [path for path in linears if matches_any(path, self.inputs)]
        if self.inputs and not matching:
            raise ProtquantError(f"rotation: inputs {list(self.inputs)} match no linear layer")
        chosen = [path for path in matching if assignments.weight_format(path) or assignments.input_format(path)]
        for link in find_links(model):
            # Later steps take the input of the first reader of a link for that of all readers.
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


def _rotated(x: Tensor, rotation: Rotation, baked: bool) -> Tensor:
    x = x.double().cpu()
    return rotation.forward(x - x.mean(-1, keepdim=True) if baked else x)


def _fold_norm(reader: nn.Linear, norm: nn.LayerNorm, rotation: Rotation) -> None:
    """Replace W (gain * x + bias) + b by W' (x Q) + b'."""
    weight = reader.weight.double().cpu()
    if norm.bias is not None:
        shift = weight @ norm.bias.double().cpu()
        _set(reader, bias=shift if reader.bias is None else reader.bias.double().cpu() + shift)
    _set(reader, weight=rotation(weight if norm.weight is None else weight * norm.weight.double().cpu()))


def _rotate_values(model: nn.Module, link: Link, generator: torch.Generator) -> None:
    assert link.writer is not None
    writer = _linear(model, link.writer)
    rotation = _draw(link.mixable, generator, f"the values of {link.writer}")

    def rotated(x: Tensor) -> Tensor:
        """Rotate vectors along the last axis, head by head."""
        return rotation.forward(x.double().cpu().unflatten(-1, (-1, link.mixable))).flatten(-2)

    _set(writer, weight=rotated(writer.weight.T).T)
    if writer.bias is not None:
        _set(writer, bias=rotated(writer.bias))
    for path in link.readers:
        reader = _linear(model, path)
        _set(reader, weight=rotated(reader.weight))
