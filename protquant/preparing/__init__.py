"""From a checkpoint to a quantized model: calibration, objectives, quantization in a stream, models made before."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
