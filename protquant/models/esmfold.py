"""ESMFold: structure prediction from a single sequence by ESM-2 and a folding trunk (Lin et al. 2023).

Letters in shapes: b batch, i j l residues, s channels of the single, c channels of the pair.
"""

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.models.esm.openfold_utils import (
    atom14_to_atom37,
    make_atom14_masks,
    residue_constants,
)

from protquant.models.alphabet import CLS, EOS, PAD, TOKENS
from protquant.models.complexes import FoldingInput, encode_complexes
from protquant.models.confidence import PLDDTHead
from protquant.models.configs import ESMFoldConfig
from protquant.models.embedding import embedding
from protquant.models.esm2 import ESM2
from protquant.models.folding_objective import folding_objective
from protquant.models.folding_output import ESMFoldOutput
from protquant.models.protocol import ProteinModel
from protquant.models.tasks import TaskName
from protquant.models.trunk import AfterPass, FoldingTrunk
from protquant.topology import Link

__all__ = ["DISTOGRAM_BINS", "ESMFold", "ESMFoldConfig", "ESMFoldOutput"]

DISTOGRAM_BINS = 64
# Padding, the 20 residues, unknown, mask.
_NUM_RESIDUE_TOKENS = residue_constants.restype_num + 3


class SingleEmbedding(nn.Module):
    """Perceptron from the mixed hidden states of the language model to the single representation."""

    def __init__(self, lm_dim: int, single_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(lm_dim)
        self.linear_1 = nn.Linear(lm_dim, single_dim)
        self.linear_2 = nn.Linear(single_dim, single_dim)

    def links(self) -> list[Link]:
        return [Link(("linear_1",), "norm"), Link(("linear_2",), "linear_1")]

    def forward(self, hidden: Float[Tensor, "b l c"]) -> Float[Tensor, "b l s"]:
        return self.linear_2(F.relu(self.linear_1(self.norm(hidden))))


class ESMFold(ProteinModel):
    """The language model, the folding trunk and the heads."""

    config_type = ESMFoldConfig
    objective = staticmethod(folding_objective)
    esm_token: Tensor

    def __init__(self, config: ESMFoldConfig) -> None:
        super().__init__()
        self.config = config
        single, pair = config.trunk.single_dim, config.trunk.pair_dim
        self.lm = ESM2(config.lm)
        self.layer_mix = nn.Parameter(torch.zeros(config.lm.num_layers + 1))
        self.single_embedding = SingleEmbedding(config.lm.dim, single)
        if config.embed_residues:
            self.residue_embedding = embedding(_NUM_RESIDUE_TOKENS, single, padding_idx=0)
        self.trunk = FoldingTrunk(config.trunk)
        self.distogram_head = nn.Linear(pair, DISTOGRAM_BINS)
        self.pae_head = nn.Linear(pair, DISTOGRAM_BINS)
        self.lm_head = nn.Linear(single, _NUM_RESIDUE_TOKENS)
        self.plddt_head = PLDDTHead(config.trunk.structure_module.single_dim, config.plddt_hidden_dim)
        tokens = [TOKENS.index(letter) for letter in residue_constants.restypes_with_x]
        # On the CPU even if parameters are on the meta device, because the state dict does not contain it.
        self.register_buffer("esm_token", torch.tensor(tokens, device="cpu"), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.layer_mix.device

    @property
    def tasks(self) -> frozenset[TaskName]:
        return self.lm.tasks | {"structure"}

    @property
    def language_model(self) -> ESM2:
        return self.lm

    def run_sequence(self, sequence: str) -> ESMFoldOutput:
        # One recycle, so that calibration sees both inputs of the trunk: the first one, and its own output.
        output: ESMFoldOutput = self(encode_complexes([sequence]).to(self.device), num_recycles=1)
        return output

    def exact_parts(self) -> Sequence[nn.Module]:
        return self.trunk.structure_module, self.plddt_head

    def set_compute_dtype(self, dtype: torch.dtype) -> Self:
        """Cast the language model, the trunk's blocks and their heads to `dtype`, in place.

        The structure module and the pLDDT head stay in float32, which coordinates need.
        """
        # Cast part by part: casting everything and back would round weights and constants of the exact parts.
        exact = self.exact_parts()
        for module in (*self.children(), *self.trunk.children()):
            if module is not self.trunk and module not in exact:
                module.to(dtype)
        self.layer_mix.data = self.layer_mix.data.to(dtype)
        for module in exact:
            module.float()
        return self

    def language_model_hidden(
        self, aatype: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"]
    ) -> Float[Tensor, "b l states c"]:
        """Return the language model's hidden states of all layers for the residues, without `<cls>` and `<eos>`."""
        tokens = self.esm_token[aatype].masked_fill(~mask, PAD)
        tokens = F.pad(F.pad(tokens, (1, 0), value=CLS), (0, 1), value=PAD)
        tokens[torch.arange(len(tokens)), mask.sum(-1) + 1] = EOS
        hidden = self.lm(tokens, return_hidden=True).hidden
        assert hidden is not None
        return hidden[:, 1:-1]

    def embed(
        self,
        aatype: Int[Tensor, "b l"],
        hidden: Float[Tensor, "b l states c"],
    ) -> Float[Tensor, "b l s"]:
        """Return the trunk's input: a perceptron of the layer mix, plus an embedding of the residue type."""
        mixed = torch.einsum("n,blnc->blc", self.layer_mix.softmax(0), hidden.to(self.layer_mix.dtype))
        single = self.single_embedding(mixed)
        return single + self.residue_embedding(aatype) if self.config.embed_residues else single

    def forward(
        self,
        batch: FoldingInput,
        num_recycles: int | None = None,
        chunk_size: int | None = None,
        hidden: Float[Tensor, "b l states c"] | None = None,
        after_pass: AfterPass | None = None,
    ) -> ESMFoldOutput:
        """Predict structures.

        Parameters
        ----------
        num_recycles : int, optional
            Number of times that the trunk's output is fed back; there are `num_recycles + 1` passes. By default the
            number in training.
        chunk_size : int, optional
            Number of rows of the pair that triangle attention processes at a time; it affects only memory.
        hidden : Tensor, optional
            Result of `language_model_hidden`, if it is already computed.
        after_pass : callable, optional
            Function that is called after every pass with the number of finished recycles, the single, the pair and the
            structure. If it returns True, the passes end.
        """
        aatype, mask = batch.aatype, batch.mask
        if num_recycles is None:
            num_recycles = self.config.trunk.max_recycles - 1
        if num_recycles < 0:
            raise ValueError(f"num_recycles must not be negative, got {num_recycles}")
        # No variable holds the hidden states, so that they are freed before the trunk begins.
        single_input = self.embed(aatype, self.language_model_hidden(aatype, mask) if hidden is None else hidden)
        single, pair, structure = self.trunk(
            single_input, aatype, batch.residue_index, mask, num_recycles, chunk_size, after_pass
        )
        distogram = self.distogram_head(pair)
        distogram = (distogram + distogram.transpose(1, 2)).div_(2)
        pae_logits = self.pae_head(pair).float()
        plddt_logits = self.plddt_head(structure.single)
        atoms: dict[str, Tensor] = make_atom14_masks({"aatype": aatype})
        residues = batch.chain_index >= 0
        return ESMFoldOutput(
            positions=atom14_to_atom37(structure.positions, atoms),
            positions14=structure.positions,
            atom_mask=atoms["atom37_atom_exists"].bool() & residues[:, :, None],
            plddt_logits=plddt_logits,
            pae_logits=pae_logits,
            mask=mask,
            distogram_logits=distogram,
            lm_logits=self.lm_head(single),
            single=single,
            pair=pair,
            frames=structure.frames,
            unnormalized_angles=structure.unnormalized_angles,
        )
