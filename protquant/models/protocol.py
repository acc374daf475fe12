"""Base classes of models: the interface that the rest of protquant uses.

A new model is a subclass of `LanguageModel` or `ProteinModel`, added in `protquant.models.registry` or, in a plug-in,
by `register_model`. Its modules declare their connections for quantization (`protquant.topology`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from protquant.errors import ProtquantError
from protquant.models.lineage import Lineage
from protquant.models.tasks import TaskName

__all__ = ["LanguageModel", "ProteinModel"]


class ProteinModel(nn.Module, ABC):
    """Base class of models.

    Attributes
    ----------
    config_type : type
        Frozen dataclass of sizes, one for each class of models; `cls(config)` creates a model.
    config : config_type
        Sizes of this model.
    source : str
        Origin of the weights; empty for a model that was not loaded.
    fingerprint : str
        Hash of the loaded sizes and weights; empty for a model that was not loaded.
    lineage : Lineage
        Record of float model, recipe and execution.
    """

    config_type: ClassVar[type[Any]]
    config: Any
    source: str = ""
    fingerprint: str = ""
    lineage: Lineage = Lineage()

    @property
    @abstractmethod
    def tasks(self) -> frozenset[TaskName]:
        """Tasks of this checkpoint; for instance, a language model without a contact head predicts no contacts."""

    @property
    @abstractmethod
    def language_model(self) -> "LanguageModel":
        """The part of the model for the tasks `contacts` and `language`."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @abstractmethod
    def run_sequence(self, sequence: str) -> Any:
        """Run the model once on a protein, for calibration; its chains are joined by ':'.

        Returns
        -------
        object
            Output for `objective`.
        """

    @staticmethod
    @abstractmethod
    def objective(output: Any, answer: Any, loss: str = "hidden") -> Float[Tensor, ""]:
        """Return the distance between an output and the float model's output, which training recipes minimize.

        Raises
        ------
        ProtquantError
            If the model does not have this `loss`.
        """

    def exact_parts(self) -> Sequence[nn.Module]:
        """Return the parts that always stay in float32."""
        return ()

    def set_compute_dtype(self, dtype: torch.dtype) -> Self:
        """Cast the model to `dtype` in place, except for `exact_parts`."""
        return self.to(dtype)


class LanguageModel(ProteinModel):
    """Base class of masked language models.

    The forward pass takes tokens, and returns an object with `last_hidden`, shape (batch, tokens, channels). The first
    and the last token of a sequence are not residues.

    Attributes
    ----------
    mask_token : int
        Token of a masked residue.
    """

    mask_token: int

    @property
    def language_model(self) -> "LanguageModel":
        return self

    @abstractmethod
    def tokenize(self, sequences: Sequence[str]) -> Int[Tensor, "b l"]:
        """Return the tokens of single chains, on the device of the model."""

    @abstractmethod
    def logits(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b l vocab"]:
        """Return the logits of the masked language model."""

    def contacts(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b residues residues"]:  # noqa: ARG002
        """Return the probabilities that C-beta atoms of two residues are closer than 8 angstrom.

        Raises
        ------
        ProtquantError
            If the model or the checkpoint has no contact head.
        """
        raise ProtquantError(f"{type(self).__name__} predicts no contacts; name a model that does, such as an ESM-2")

    def logits_and_contacts(
        self, tokens: Int[Tensor, "b l"]
    ) -> tuple[Float[Tensor, "b l vocab"] | None, Float[Tensor, "b residues residues"] | None]:
        """Return the logits and the contacts; None where the checkpoint has no head."""
        return (
            self.logits(tokens) if "language" in self.tasks else None,
            self.contacts(tokens) if "contacts" in self.tasks else None,
        )

    def run_sequence(self, sequence: str) -> Any:
        return self(self.tokenize([sequence.replace(":", "")]))

    @staticmethod
    def objective(output: Any, answer: Any, loss: str = "hidden") -> Float[Tensor, ""]:
        """Return the mean squared error of the hidden states after the last layer and its norm."""
        if loss != "hidden":
            raise ProtquantError(f"a language model has no loss {loss!r}; say 'hidden'")
        return F.mse_loss(output.last_hidden, answer.last_hidden)
