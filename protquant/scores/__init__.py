"""Scores: agreement of a structure, a contact map or a confidence with a reference or with another prediction."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
