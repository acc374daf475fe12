"""Integer execution: convert quantized models, which simulate, to models that run on codes with `protquant.kernels`."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
