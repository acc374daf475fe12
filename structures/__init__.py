"""Reference structures: the 50 chains that the package contains, and any folder of PDB or mmCIF files."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
