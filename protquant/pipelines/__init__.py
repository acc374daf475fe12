"""What the commands call: models, recipes, files and scores put together."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
