"""Scores: how well a structure, a contact map or a confidence agrees with the truth, or with another prediction."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
