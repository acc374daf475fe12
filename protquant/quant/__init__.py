"""Post-training quantization: calibrate a float model, choose a recipe, get a quantized one and a report."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
