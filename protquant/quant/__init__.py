"""Post-training quantization: calibrate a float model, choose a recipe, get a quantized model and a report."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
