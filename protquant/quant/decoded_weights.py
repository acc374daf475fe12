"""Cache of the decoded weights of simulated layers, up to a limit of bytes.

Decoding a weight costs about as much as multiplying a few hundred rows by it, and the result takes four times the
memory of eight-bit codes. So weights are cached in the order of the first calls until the limit is reached; later
layers decode at every call. (A model calls its layers in turn, so evicting the least recently used weight would always
evict the next one needed.)
"""

from weakref import WeakKeyDictionary

from torch import Tensor, nn

__all__ = ["DecodedWeights", "decoded_weights"]


class DecodedWeights:
    """Decoded weights by layer.

    Parameters
    ----------
    limit : int
        Limit of the cache, in bytes; 0 caches nothing.
    """

    def __init__(self, limit: int = 2**30) -> None:
        self.limit = limit
        self._kept: WeakKeyDictionary[nn.Module, Tensor] = WeakKeyDictionary()

    @property
    def nbytes(self) -> int:
        """Bytes of the cached weights."""
        return sum(weight.nbytes for weight in self._kept.values())

    def get(self, layer: nn.Module) -> Tensor | None:
        """Return the cached weight of a layer; None if it is not cached."""
        return self._kept.get(layer)

    def keep(self, layer: nn.Module, weight: Tensor) -> Tensor:
        """Cache the weight of a layer if there is room, and return it."""
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
"""The cache of this process; set `decoded_weights.limit` to change its size."""
