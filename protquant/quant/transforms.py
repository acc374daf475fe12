"""Changes to the layers of a link that do not change the function of the float model."""

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
    """Transforms the input of linear layers, and their weights so that the outputs stay the same.

    Its tensors are buffers. Its state follows the rules of `protquant.quant.storable`, so that it can be saved.
    """

    @abstractmethod
    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... d"]:
        """Return the transformed input."""

    @abstractmethod
    def columns(self, weight: Float[Tensor, "o c"]) -> Float[Tensor, "o d"]:
        """Return the weight W' with W' forward(x) = W x."""


class Divide(InputTransform):
    """Divides every channel by its own scale."""

    scale: Tensor

    def __init__(self, scale: Float[Tensor, " c"]) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        return x / self.scale.to(x.dtype)

    def columns(self, weight: Float[Tensor, "o c"]) -> Float[Tensor, "o c"]:
        return weight * self.scale


class TransformedLinear(Storable, nn.Linear):
    """Linear layer with `transforms` in front of it. Its input site is the output of the transforms."""

    def __init__(self, linear: nn.Linear, transforms: list[InputTransform]) -> None:
        # Made on the meta device, because the parameters of `linear` are used.
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.transforms = nn.Sequential(*transforms)
        self.train(linear.training)

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        return F.linear(self.transforms(x), self.weight, self.bias)


class LinkLayers:
    """Layers of a link of a float model, with the changes that steps may make to them.

    Attributes
    ----------
    readers : dict
        Linear layers by path.
    writer : nn.LayerNorm, nn.Linear or None
        See `protquant.topology.Link`; also None if scales can no longer be folded into it.
    changed : bool
        Whether the layers were changed.
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
        # Readers with transforms have channels of their own: a scale for those cannot be folded into the writer.
        if any(isinstance(reader, TransformedLinear) for reader in self.readers.values()):
            writer = None
        # A norm whose gain a rotation has folded into its readers cannot take a scale.
        if isinstance(writer, nn.LayerNorm) and not writer.elementwise_affine:
            writer = None
        self.writer = writer
        self.changed = False

    @property
    def name(self) -> str:
        """Paths of the readers, for messages."""
        return ", ".join(self.readers)

    def absolute_weight_maximum(self) -> Float[Tensor, " c"]:
        """Return the largest |weight| of any reader for each channel."""
        columns = [reader.weight.detach().abs().amax(0) for reader in self.readers.values()]
        return torch.stack(columns).amax(0)

    @torch.no_grad()
    def scale(self, scale: Float[Tensor, " c"]) -> None:
        """Divide every channel by `scale`, and multiply the readers' weight columns by it.

        The division is folded into the writer if there is one; otherwise the readers divide at run time.

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
        """Add a copy of `transform` after the transforms of every reader, and change the reader's weight to match."""
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
