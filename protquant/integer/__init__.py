"""Integer execution: quantized models, which simulate, made to run on codes through `protquant.kernels`."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
