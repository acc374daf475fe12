"""Files that stay valid after interruptions: atomic writes, tables, manifests, bounded reading."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
