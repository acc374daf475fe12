"""Integer execution: quantized models, which simulate, made to run on codes through `protquant.kernels`."""

from protquant.integer.convert import Support, SupportRow, to_integer

__all__ = ["Support", "SupportRow", "to_integer"]
