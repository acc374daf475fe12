"""A checkpoint of random weights in the layout of a released ESMFold, for measurements at its size."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from transformers.models.esm.openfold_utils import residue_constants

from protquant.checkpoints.folders import CONFIG, new_folder
from protquant.checkpoints.registry import KNOWN
from protquant.errors import ProtquantError, suggestion
from protquant.models import ESMFoldConfig
from protquant.models.alphabet import MASK, PAD, TOKENS
from protquant.running.random_weights import random_parameter

__all__ = ["make_checkpoint", "sizes_like", "transformers_config"]

_INDEX = "model.safetensors.index.json"
_ROTARY_BASE = 10_000.0


def sizes_like(
    name: str = "esmfold_v1", *, layers: int | None = None, width: int | None = None, blocks: int | None = None
) -> ESMFoldConfig:
    """Return the sizes of a released ESMFold, or of a smaller model with the same parts.

    Parameters
    ----------
    name : str
        Name of a released folding model, such as `esmfold_v1`.
    layers, width : int, optional
        Layers and channels of the language model. Its heads keep their number of channels.
    blocks : int, optional
        Blocks of the trunk.

    Raises
    ------
    ProtquantError
        If no released folding model has that name, or a size is not possible.
    """
    folding = {known: each.config for known, each in KNOWN.items() if isinstance(each.config, ESMFoldConfig)}
    if name not in folding:
        raise ProtquantError(f"--like {name}: no released folding model has this name; {suggestion(name, folding)}")
    config = folding[name]
    head = config.lm.dim // config.lm.num_heads
    width = config.lm.dim if width is None else width
    if width < head or width % head:
        raise ProtquantError(f"--width {width}: heads have {head} channels; give a multiple of {head}")
    for option, count in (("--layers", layers), ("--blocks", blocks)):
        if count is not None and count < 1:
            raise ProtquantError(f"{option} {count}: give 1 or more")
    lm = replace(
        config.lm,
        num_layers=config.lm.num_layers if layers is None else layers,
        dim=width,
        num_heads=width // head,
        ffn_dim=width * config.lm.ffn_dim // config.lm.dim,
    )
    trunk = replace(config.trunk, num_blocks=config.trunk.num_blocks if blocks is None else blocks)
    return replace(config, lm=lm, trunk=trunk)


def make_checkpoint(
    folder: Path,
    config: ESMFoldConfig,
    *,
    shard_size: int = 2 * 10**9,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write random weights in the layout of transformers' `EsmForProteinFolding`, one shard at a time.

    The language model is stored in half precision and the rest in float32, as in the released checkpoint. Weights are
    scaled so that activations stay finite through all layers, also in bfloat16 and quantized. At most one shard and one
    further tensor are in memory.

    Parameters
    ----------
    folder : Path
        New or empty folder. It appears complete or not at all.
    shard_size : int
        Largest number of bytes in a file, unless one tensor is larger.
    seed : int
        Seed of the weights.
    say : callable
        Called with a line of text after each shard.

    Returns
    -------
    dict
        `folder shards tensors parameters bytes seconds`.

    Raises
    ------
    ProtquantError
        If the folder is not empty or cannot be written, or the disk has too little space.
    """
    from transformers import EsmForProteinFolding  # noqa: PLC0415 (slow to import, and few need it)

    started = time.perf_counter()
    settings = transformers_config(config)
    with torch.device("meta"):
        model = EsmForProteinFolding(settings)
    places = model.state_dict()
    shards = split_torch_state_dict_into_shards(places, max_shard_size=shard_size).filename_to_tensors
    total = sum(place.numel() * place.element_size() for place in places.values())
    folder.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(folder.parent).free) < total:
        raise ProtquantError(
            f"{folder}: the checkpoint takes {total / 1e9:.2f} GB, and the disk has {free / 1e9:.2f} GB left; name a"
            " folder on another disk, or a smaller model"
        )
    generator = torch.Generator().manual_seed(seed)
    parameters = {name for name, _ in model.named_parameters()}
    with new_folder(folder, overwrite=False) as temporary:
        for number, (file, names) in enumerate(shards.items(), start=1):
            shard = {}
            for name in names:
                made = random_parameter(model, name, generator) if name in parameters else _constant(name, config)
                if made.shape != places[name].shape:
                    raise ProtquantError(_unknown_layout(name))
                shard[name] = made.to(places[name].dtype).contiguous()
            save_file(shard, temporary / file, metadata={"format": "pt"})
            say(f"{folder}: file {number} of {len(shards)} after {time.perf_counter() - started:.0f} s")
        if len(shards) > 1:
            where = {name: file for file, names in shards.items() for name in names}
            index = {"metadata": {"total_size": total}, "weight_map": where}
            (temporary / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
        (temporary / CONFIG).write_text(settings.to_json_string(), encoding="utf-8")
    return {
        "folder": str(folder),
        "shards": len(shards),
        "tensors": len(places),
        "parameters": sum(places[name].numel() for name in parameters),
        "bytes": total,
        "seconds": time.perf_counter() - started,
    }


def transformers_config(config: ESMFoldConfig) -> Any:
    """Return the sizes as an `EsmConfig` of transformers, with the language model in half precision."""
    from transformers import EsmConfig  # noqa: PLC0415 (takes a second and 80 MiB, and few need it)

    trunk, structure = config.trunk, config.trunk.structure_module
    structure_module = {
        "sequence_dim": structure.single_dim,
        "pairwise_dim": structure.pair_dim,
        "ipa_dim": structure.ipa_dim,
        "resnet_dim": structure.resnet_dim,
        "num_heads_ipa": structure.num_heads,
        "num_qk_points": structure.num_qk_points,
        "num_v_points": structure.num_v_points,
        "num_blocks": structure.num_layers,
        "num_transition_layers": structure.num_transition_layers,
        "num_resnet_blocks": structure.num_resnet_blocks,
        "num_angles": structure.num_angles,
        "trans_scale_factor": int(structure.translation_scale),
    }
    folding_trunk = {
        "num_blocks": trunk.num_blocks,
        "sequence_state_dim": trunk.single_dim,
        "pairwise_state_dim": trunk.pair_dim,
        "sequence_head_width": trunk.single_head_dim,
        "pairwise_head_width": trunk.pair_head_dim,
        "position_bins": trunk.position_bins,
        "max_recycles": trunk.max_recycles,
        "structure_module": structure_module,
    }
    folding = {
        "fp16_esm": True,
        "embed_aa": config.embed_residues,
        "lddt_head_hid_dim": config.plddt_hidden_dim,
        "trunk": folding_trunk,
    }
    return EsmConfig(
        architectures=["EsmForProteinFolding"],
        dtype="float32",
        vocab_size=config.lm.vocab_size,
        vocab_list=list(TOKENS),
        mask_token_id=MASK,
        pad_token_id=PAD,
        hidden_size=config.lm.dim,
        num_hidden_layers=config.lm.num_layers,
        num_attention_heads=config.lm.num_heads,
        intermediate_size=config.lm.ffn_dim,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=config.lm.layer_norm_eps,
        position_embedding_type="rotary",
        emb_layer_norm_before=False,
        token_dropout=config.lm.token_dropout,
        use_cache=False,
        is_folding_model=True,
        esmfold_config=folding,
    )


def _constant(name: str, config: ESMFoldConfig) -> Tensor:
    """Return a tensor of the checkpoint that is not a weight."""
    if name == "af2_to_esm":
        letters: list[str] = residue_constants.restypes_with_x
        return torch.tensor([PAD, *(TOKENS.index(letter) for letter in letters)])
    if name == "esm.rotary_embeddings.inv_freq":
        channels = config.lm.dim // config.lm.num_heads
        return 1.0 / _ROTARY_BASE ** (torch.arange(0, channels, 2, dtype=torch.float32) / channels)
    raise ProtquantError(_unknown_layout(name))


def _unknown_layout(name: str) -> str:
    return (
        f"this version of transformers has a tensor {name} in an ESMFold that is not known here, so that the checkpoint"
        " would not be as the released one; install the version that constraints.txt names"
    )
