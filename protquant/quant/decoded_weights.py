"""Decoded weights of layers that simulate: kept between calls, up to a bound.

To decode a weight costs about as much as to multiply a few hundred rows with it, and takes four times the memory of
eight-bit codes. So the first layers that are called keep theirs until the bound is reached, and the others decode at
every call. (A model calls its layers in turn: to throw out the one used longest ago would always throw out the next.)
"""

from weakref import WeakKeyDictionary

from torch import Tensor, nn

__all__ = ["DecodedWeights", "decoded_weights"]


class DecodedWeights:
    """Decoded weights by layer.

    Parameters
    ----------
    limit : int
        Bytes of all weights that are kept; 0 keeps none.
    """

    def __init__(self, limit: int = 2**30) -> None:
        self.limit = limit
        self._kept: WeakKeyDictionary[nn.Module, Tensor] = WeakKeyDictionary()

    @property
    def nbytes(self) -> int:
        """Bytes of the weights that are kept."""
        return sum(weight.nbytes for weight in self._kept.values())

    def get(self, layer: nn.Module) -> Tensor | None:
        """Return the weight that is kept of a layer; None if there is none."""
        return self._kept.get(layer)

    def keep(self, layer: nn.Module, weight: Tensor) -> Tensor:
        """Keep the weight of a layer if there is room, and return it."""
        if self.nbytes + weight.nbytes <= self.limit:
            self._kept[layer] = weight
        return weight

    def forget(self, layer: nn.Module) -> None:
        """Drop the weight of a layer."""
        self._kept.pop(layer, None)

    def clear(self) -> None:
        """Drop all weights."""
        self._kept.clear()


decoded_weights = DecodedWeights()
"""The weights that this process keeps; set `decoded_weights.limit` to change the bound."""
