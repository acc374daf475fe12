"""Building blocks of tunings: trainable parameters of a quantized model, and gradient descent."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
