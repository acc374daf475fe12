"""What tunings are made of: parameters of the quantized model that can be learned, and gradient descent on them."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
