"""What any run of a model needs: its device, its execution in float or in integers, its batches and its memory."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
