"""Changes to the layers of a link that leave what the model computes in float as it is."""

import copy
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from protquant.errors import ProtquantError
from protquant.quant.storable import Storable
from protquant.topology import Link

__all__ = ["Divide", "InputTransform", "LinkLayers", "TransformedLinear"]


class InputTransform(Storable, ABC):
    """Changes what linear layers read, and their weights so that the outputs stay; its tensors are buffers.

    Its state follows `protquant.quant.storable`, so that it can be saved.
    """

    @abstractmethod
    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... d"]:
        """What the layers read now."""

    @abstractmethod
    def columns(self, weight: Float[Tensor, "o c"]) -> Float[Tensor, "o d"]:
        """The weight W' with W' forward(x) = W x."""


class Divide(InputTransform):
    """Divides every channel by a number of its own."""

    scale: Tensor

    def __init__(self, scale: Float[Tensor, " c"]) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        return x / self.scale.to(x.dtype)

    def columns(self, weight: Float[Tensor, "o c"]) -> Float[Tensor, "o c"]:
        return weight * self.scale


class TransformedLinear(Storable, nn.Linear):
    """A linear layer whose input goes through `transforms` first; its input site is what comes out of them."""

    def __init__(self, linear: nn.Linear, transforms: list[InputTransform]) -> None:
        # On the meta device: the parameters are the other's.
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.transforms = nn.Sequential(*transforms)
        self.train(linear.training)

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        return F.linear(self.transforms(x), self.weight, self.bias)


class LinkLayers:
    """The layers of a link of a float model, and what may be done to them.

    Attributes
    ----------
    readers : dict
        The `nn.Linear` by path.
    writer : nn.LayerNorm, nn.Linear or None
        See `protquant.topology.Link`; None also where nothing can be folded into it any more.
    changed : bool
        Whether anything was done to them.
    """

    def __init__(self, model: nn.Module, link: Link) -> None:
        self._model = model
        self.link = link
        self.readers: dict[str, nn.Linear] = {}
        for path in link.readers:
            layer = model.get_submodule(path)
            assert isinstance(layer, nn.Linear), path
            self.readers[path] = layer
        writer = None if link.writer is None else model.get_submodule(link.writer)
        assert writer is None or isinstance(writer, nn.LayerNorm | nn.Linear), link.writer
        # Channels that readers have changed for others of their own are no longer the writer's.
        if any(isinstance(reader, TransformedLinear) for reader in self.readers.values()):
            writer = None
        # A norm that a rotation has emptied has no gain to fold into.
        if isinstance(writer, nn.LayerNorm) and not writer.elementwise_affine:
            writer = None
        self.writer = writer
        self.changed = False

    @property
    def name(self) -> str:
        """Paths of the readers, for messages."""
        return ", ".join(self.readers)

    def absolute_weight_maximum(self) -> Float[Tensor, " c"]:
        """Largest |weight| that any reader has for each channel."""
        columns = [reader.weight.detach().abs().amax(0) for reader in self.readers.values()]
        return torch.stack(columns).amax(0)

    @torch.no_grad()
    def scale(self, scale: Float[Tensor, " c"]) -> None:
        """Divide every channel by `scale`, and multiply the weights that meet it.

        Folded into the writer where there is one; otherwise the readers divide at run time.

        Raises
        ------
        ProtquantError
            If a scale is not positive and finite.
        """
        if not (torch.isfinite(scale).all() and (scale > 0).all()):
            raise ProtquantError(f"scales of {self.name} must be positive and finite")
        self.changed = True
        if self.writer is None:
            self.prepend(Divide(scale))
            return
        rows = slice(None) if self.link.rows is None else list(self.link.rows)
        divisor = scale.to(self.writer.weight)
        shape = (-1, *[1] * (self.writer.weight.ndim - 1))
        self.writer.weight[rows] = self.writer.weight[rows] / divisor.view(shape)
        if self.writer.bias is not None:
            self.writer.bias[rows] = self.writer.bias[rows] / divisor
        for reader in self.readers.values():
            reader.weight.mul_(scale.to(reader.weight))

    @torch.no_grad()
    def prepend(self, transform: InputTransform) -> None:
        """Put a copy of `transform` before every reader, behind those that are there, and change its weight to fit."""
        self.changed = True
        for path, reader in list(self.readers.items()):
            own = copy.deepcopy(transform).to(reader.weight.device)
            layer = reader if isinstance(reader, TransformedLinear) else TransformedLinear(reader, [])
            layer.weight = nn.Parameter(own.columns(reader.weight).to(reader.weight), reader.weight.requires_grad)
            layer.in_features = layer.weight.shape[1]
            layer.transforms.append(own)
            self._model.set_submodule(path, layer)
            self.readers[path] = layer
        self.writer = None
