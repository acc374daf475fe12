"""Running of models: device, execution in float or integers, batches, and memory."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
