"""Blocks of the folding trunk in transformers and in our float model, with the same weights."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from protquant.checkpoints.names import HUGGING_FACE_ESMFOLD
from protquant.models.trunk import FoldingBlock, FoldingBlocks, TrunkConfig
from protquant.running.random_weights import randomize

__all__ = ["TrunkWork", "hugging_face_block", "random_inputs", "trunk_baseline"]

_PREFIX = "trunk.blocks.0."
# Spread of channel sizes: most are similar, and a few are tens of times larger, as in a trained trunk.
_SPREAD = 1.0


@dataclass
class TrunkWork:
    """Blocks with random weights, and their inputs.

    Attributes
    ----------
    blocks : FoldingBlocks
        Blocks in float32.
    single : Tensor, shape=(b, l, s), dtype=float32
    pair : Tensor, shape=(b, i, j, c), dtype=float32
    mask : Tensor, shape=(b, l), dtype=bool
        All true: one protein, without padding.
    chunk_size : int, optional
        Rows of triangle attention at a time, for float models.
    """

    config: TrunkConfig
    blocks: FoldingBlocks
    single: Float[Tensor, "b l s"]
    pair: Float[Tensor, "b i j c"]
    mask: Bool[Tensor, "b l"]
    chunk_size: int | None = None
    _copies: dict[torch.dtype, list[tuple[Tensor, Tensor]]] = field(default_factory=dict, repr=False)

    @classmethod
    def random(
        cls,
        config: TrunkConfig,
        length: int,
        *,
        blocks: int = 1,
        chunk_size: int | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> "TrunkWork":
        """Return random work, which depends on the seed only."""
        made = []
        for index in range(blocks):
            with torch.device("meta"):
                block = FoldingBlock(config)
            block = block.to_empty(device="cpu").eval().requires_grad_(False)
            randomize(block, seed + index)
            made.append(block.to(device))
        return cls(
            config, FoldingBlocks(made).eval(), *random_inputs(config, length, seed=seed, device=device), chunk_size
        )

    def run(self, block: nn.Module, dtype: torch.dtype, mask: Tensor | None = None) -> Callable[[], Any]:
        """Return the timed run: it copies the representations into buffers, and runs the block on them.

        The integer block changes both in place, so each run needs a copy; all candidates make this copy.

        Parameters
        ----------
        block : nn.Module
            Module with the interface of `FoldingBlock`.
        mask : Tensor, optional
            By default the boolean one.
        """
        if dtype not in self._copies:
            fresh = self.single.to(dtype), self.pair.to(dtype)
            self._copies[dtype] = [(each, torch.empty_like(each)) for each in fresh]
        copies = self._copies[dtype]
        mask = self.mask if mask is None else mask

        @torch.inference_mode()
        def run() -> Any:
            single, pair = (buffer.copy_(fresh) for fresh, buffer in copies)
            return block(single, pair, mask, self.chunk_size)

        return run


def random_inputs(
    config: TrunkConfig, length: int, *, seed: int = 0, protein: int = 0, device: torch.device | str = "cpu"
) -> tuple[Float[Tensor, "b l s"], Float[Tensor, "b i j c"], Bool[Tensor, "b l"]]:
    """Return the inputs of a block: the single, the pair, and the mask of one protein.

    Parameters
    ----------
    seed : int
        Seed of the sizes of channels, which all proteins share.
    protein : int
        Number of the protein.
    """
    channels = torch.Generator().manual_seed(seed)
    values = torch.Generator().manual_seed(1000 * seed + protein)

    def random(*shape: int) -> Tensor:
        spread = (_SPREAD * torch.randn(shape[-1], generator=channels)).exp()
        return (torch.randn(shape, generator=values) * spread).to(device)

    single, pair = random(1, length, config.single_dim), random(1, length, length, config.pair_dim)
    return single, pair, torch.ones(1, length, dtype=torch.bool, device=device)


def hugging_face_block(block: FoldingBlock, config: TrunkConfig) -> nn.Module:
    """Return the block of transformers, which shares the tensors of our block."""
    # Optional parts of transformers, which are slow to import.
    from transformers.models.esm.configuration_esm import TrunkConfig as TheirConfig  # noqa: PLC0415
    from transformers.models.esm.modeling_esmfold import EsmFoldTriangularSelfAttentionBlock  # noqa: PLC0415

    their_config = TheirConfig(
        sequence_state_dim=config.single_dim,
        pairwise_state_dim=config.pair_dim,
        sequence_head_width=config.single_head_dim,
        pairwise_head_width=config.pair_head_dim,
    )
    theirs: nn.Module = EsmFoldTriangularSelfAttentionBlock(their_config)
    state = {}
    for name, tensor in block.state_dict().items():
        renamed = HUGGING_FACE_ESMFOLD.to_theirs(_PREFIX + name)
        assert renamed is not None, name
        state[renamed.removeprefix(_PREFIX)] = tensor
    theirs.load_state_dict(state, assign=True)
    return theirs.eval().requires_grad_(False)


def trunk_baseline(name: str, work: TrunkWork) -> Callable[[], Any]:
    """Return the timed run of one of `TRUNK_BASELINES`, with weights and inputs in its type."""
    whose, _, kind = name.partition("-")
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[kind]
    if whose == "transformers":
        theirs = FoldingBlocks(hugging_face_block(block, work.config) for block in _folding_blocks(work.blocks))
        # A mask of integers, as `EsmForProteinFolding` makes it.
        return work.run(_cast(theirs, dtype), dtype, work.mask.long())
    return work.run(_cast(work.blocks, dtype), dtype)


def _cast(block: nn.Module, dtype: torch.dtype) -> nn.Module:
    return block if dtype == torch.float32 else copy.deepcopy(block).to(dtype)


def _folding_blocks(blocks: FoldingBlocks) -> Iterator[FoldingBlock]:
    for block in blocks:
        assert isinstance(block, FoldingBlock)
        yield block
