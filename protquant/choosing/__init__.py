"""Choose formats of sites: measure sensitivities, and search for a recipe within a budget."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
