"""Reference structures: the 50 chains that ship with the package, and any folder of PDB or mmCIF files."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
