"""Make quantized models from checkpoints: calibrate, quantize block by block, and cache the results."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
