"""The kinds of models, by their names in checkpoints."""

from typing import Any

from protquant.models.esm2 import ESM2
from protquant.models.esmfold import ESMFold
from protquant.models.protocol import ProteinModel

__all__ = ["MODELS", "empty_model", "kind_of", "register_model"]

MODELS: dict[str, type[ProteinModel]] = {"esm2": ESM2, "esmfold": ESMFold}
"""Classes of models by kind; each has its own `config_type`."""


def register_model(kind: str, model: type[ProteinModel]) -> None:
    """Register a class of models, so that checkpoints can name it.

    Parameters
    ----------
    kind : str
        Name in `config.json` and `scheme.json`.

    Raises
    ------
    ValueError
        If another class has this name or this `config_type`.
    """
    for other, known in MODELS.items():
        if other == kind or known.config_type is model.config_type:
            raise ValueError(f"the kind {other!r} of models is {known.__name__}; give {model.__name__} its own sizes")
    MODELS[kind] = model


def kind_of(config: object) -> str:
    """Return the kind of the models whose sizes have this type."""
    return next(kind for kind, model in MODELS.items() if model.config_type is type(config))


def empty_model(config: Any) -> ProteinModel:
    """Return an untrained model of these sizes on the default device."""
    return MODELS[kind_of(config)](config)
