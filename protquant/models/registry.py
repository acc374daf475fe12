"""The kinds of models, by the names that checkpoints give them."""

from typing import Any

from protquant.models.esm2 import ESM2
from protquant.models.esmfold import ESMFold
from protquant.models.protocol import ProteinModel

__all__ = ["MODELS", "empty_model", "kind_of", "register_model"]

MODELS: dict[str, type[ProteinModel]] = {"esm2": ESM2, "esmfold": ESMFold}
"""Kind -> class of models, whose `config_type` is that of no other."""


def register_model(kind: str, model: type[ProteinModel]) -> None:
    """Make a class of models known to checkpoints.

    Parameters
    ----------
    kind : str
        Name in `config.json` and `scheme.json`.

    Raises
    ------
    ValueError
        If the name or the type of the sizes belongs to another class.
    """
    for other, known in MODELS.items():
        if other == kind or known.config_type is model.config_type:
            raise ValueError(f"the kind {other!r} of models is {known.__name__}; give {model.__name__} its own sizes")
    MODELS[kind] = model


def kind_of(config: object) -> str:
    """Return the kind of the models that have sizes of this type."""
    return next(kind for kind, model in MODELS.items() if model.config_type is type(config))


def empty_model(config: Any) -> ProteinModel:
    """Return a model of some sizes; its weights are what the default device makes them."""
    return MODELS[kind_of(config)](config)
