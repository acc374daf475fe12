"""Float forward passes of ESM-2 and ESMFold, written for quantization: every tensor of interest is a site."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
