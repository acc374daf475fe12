"""Load fair-esm's files: `esm2_*.pt` with its contact regression, and `esmfold_3B_v1.pt` with its language model.

Sizes come from the shapes of tensors, not from the configuration objects in these files.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor

from protquant.checkpoints.assemble import rotary_frequencies
from protquant.checkpoints.float_checkpoint import FloatCheckpoint
from protquant.checkpoints.foreign import refuse_other_models, unwrapped
from protquant.checkpoints.inert_pickle import read_inert, setting
from protquant.checkpoints.names import FAIR_ESM_ESM2, FAIR_ESM_ESMFOLD
from protquant.errors import ProtquantError
from protquant.models import ESM2, ESM2Config, ESMFold, ESMFoldConfig, ProteinModel, StructureModuleConfig, TrunkConfig

__all__ = ["FILES", "STEM", "load_fair_esm", "open_fair_esm"]

STEM = "esm2_t36_3B_UR50D.pt"
"""File of the language model of fair-esm's ESMFold, whose own file does not contain it."""

FILES = (".pt", ".pth", ".ckpt")
"""Suffixes of checkpoint files of fair-esm, or of Lightning with a fair-esm model."""

_TABLES = ("model", "state_dict", "model_state_dict", "module")
_OF_TRANSFORMERS = "embeddings.word_embeddings.weight"
_PREFIX = re.compile(r"^(encoder\.sentence_encoder\.|encoder\.)")
_ROTARY = re.compile(r"layers\.\d+\.self_attn\.rot_emb\.inv_freq")
_CONTACTS = ("contact_head.regression.weight", "contact_head.regression.bias")
# Constants, and the fixed alphabet.
_IGNORED = re.compile(r"trunk\.structure_module\.(default_frames|group_idx|atom_mask|lit_positions)|af2_to_esm")


def load_fair_esm(path: str | os.PathLike[str]) -> ProteinModel:
    """Load a checkpoint of fair-esm in float32 on the CPU; see `open_fair_esm`."""
    return open_fair_esm(path).load()


def open_fair_esm(path: str | os.PathLike[str]) -> FloatCheckpoint:
    """Open a checkpoint of fair-esm; its weights are mapped if the format allows that.

    Parameters
    ----------
    path : str or PathLike
        `esm2_*.pt`: with `NAME-contact-regression.pt` in the same folder, the model has a contact head. Or
        `esmfold_3B_v1.pt`: its language model, `esm2_t36_3B_UR50D.pt`, must be in the same folder.

    Raises
    ------
    ProtquantError
        If a file cannot be found or read, or has missing, surplus or wrongly shaped tensors.
    """
    path = Path(path)
    state, settings = _read(path)
    try:
        if "esm_s_combine" in state:
            return _esmfold(path, state, settings)
        config = _take_esm2(path, state, settings)
    except ProtquantError:
        raise
    # The shapes of tensors may be arbitrary, and so may the errors.
    except (ValueError, TypeError, IndexError, RuntimeError, ArithmeticError) as error:
        raise ProtquantError(f"{path}: its tensors have no shapes of an ESM-2 or ESMFold ({error}).") from error
    return FloatCheckpoint(lambda: ESM2(config), state, str(path), FAIR_ESM_ESM2, files=_beside(path))


def _beside(path: Path) -> list[Path]:
    """Return the file, and the existing files that are read with it."""
    names = [path.name, STEM, *(f"{Path(name).stem}-contact-regression.pt" for name in (path.name, STEM))]
    return [path.with_name(name) for name in dict.fromkeys(names) if path.with_name(name).is_file()]


def _read(path: Path) -> tuple[dict[str, Tensor], object]:
    """Return the tensors, without the prefixes of training programs, and the model's settings."""
    content = read_inert(path)
    tables = [content.get(name) for name in _TABLES] if isinstance(content, Mapping) else []
    state = next((table for table in [*tables, content] if _is_of_tensors(table)), None)
    if state is None:
        raise ProtquantError(
            f"{path}: not a checkpoint of fair-esm: it has no table of tensors, be it called 'model' or 'state_dict'."
        )
    named = {_PREFIX.sub("", name): tensor for name, tensor in unwrapped(state, str(path)).items()}
    refuse_other_models(named, str(path))
    if any(name.endswith(_OF_TRANSFORMERS) for name in named):
        raise ProtquantError(
            f"{path}: has the weights of a model of transformers, and not its sizes: load them into the model, and give"
            " the folder that its `save_pretrained` writes."
        )
    return named, setting(content, "cfg", "model")


def _is_of_tensors(table: object) -> TypeGuard[Mapping[str, Tensor]]:
    return isinstance(table, Mapping) and bool(table) and all(isinstance(value, Tensor) for value in table.values())


def _take_esm2(path: Path, state: dict[str, Tensor], settings: object) -> ESM2Config:
    """Return the sizes of an ESM-2; add the contact regression to `state`, and remove tensors that our model lacks."""
    regression = path.with_name(f"{path.stem}-contact-regression.pt")
    if regression.is_file():
        state.update(_read(regression)[0])
    embedding = _shape_source(path, state, "embed_tokens.weight")
    tied = state.pop("lm_head.weight", embedding)
    if not torch.equal(tied, embedding):
        raise ProtquantError(f"{path}: lm_head.weight differs from embed_tokens.weight; in ESM-2 they are one tensor.")
    rotary = {name: state.pop(name) for name in list(state) if _ROTARY.fullmatch(name)}
    num_layers = _count(state, r"layers\.(\d+)\.")
    dim = embedding.shape[1]
    if rotary:
        num_heads = dim // (2 * len(next(iter(rotary.values()))))
    elif _CONTACTS[0] in state:
        num_heads = state[_CONTACTS[0]].shape[1] // num_layers
    else:
        raise ProtquantError(
            f"{path}: neither rotary frequencies (layers.0.self_attn.rot_emb.inv_freq) nor a contact regression says"
            " how many attention heads there are; is this an ESM-2?"
        )
    token_dropout = setting(settings, "token_dropout")
    config = ESM2Config(
        num_layers=num_layers,
        dim=dim,
        num_heads=num_heads,
        ffn_dim=_shape_source(path, state, "layers.0.fc1.weight").shape[0],
        vocab_size=embedding.shape[0],
        token_dropout=True if token_dropout is None else bool(token_dropout),
        has_lm_head=any(name.startswith("lm_head.") for name in state),
        has_contact_head=any(name in state for name in _CONTACTS),
    )
    return replace(config, rotary_frequencies=rotary_frequencies(rotary, config, str(path)))


def _esmfold(path: Path, state: dict[str, Tensor], settings: object) -> FloatCheckpoint:
    state = {name: tensor for name, tensor in state.items() if not _IGNORED.fullmatch(name)}
    stem = {name.removeprefix("esm."): state.pop(name) for name in list(state) if name.startswith("esm.")}
    stem_path, stem_settings = path, None
    if not stem:
        stem_path = path.with_name(STEM)
        if not stem_path.is_file():
            raise ProtquantError(
                f"{path}: this ESMFold comes without its language model; put {STEM} (and, for contacts,"
                f" {Path(STEM).stem}-contact-regression.pt) beside it, in {path.parent}."
            )
        stem, stem_settings = _read(stem_path)
    encoder = _take_esm2(stem_path, stem, stem_settings)
    config = _esmfold_config(path, state, settings, encoder)
    state.update({f"esm.{name}": tensor for name, tensor in stem.items()})
    return FloatCheckpoint(lambda: ESMFold(config), state, str(path), FAIR_ESM_ESMFOLD, files=_beside(path))


def _esmfold_config(path: Path, state: dict[str, Tensor], settings: object, encoder: ESM2Config) -> ESMFoldConfig:
    def shape(name: str) -> tuple[int, ...]:
        return tuple(_shape_source(path, state, name).shape)

    block, module = "trunk.blocks.0.", "trunk.structure_module."
    defaults = TrunkConfig()
    pair_dim, single_dim = shape("trunk.recycle_disto.weight")[1], shape("embedding.weight")[1]
    heads = shape(f"{module}ipa.head_weights")[0]
    qk_points = shape(f"{module}ipa.linear_q_points.weight")[0] // (3 * heads)
    single_heads = shape(f"{block}pair_to_sequence.linear.weight")[0]
    pair_heads = shape(f"{block}tri_att_start.linear.weight")[0]
    # The shapes do not determine these three.
    max_recycles = setting(settings, "trunk", "max_recycles") or defaults.max_recycles
    num_layers = setting(settings, "trunk", "structure_module", "no_blocks") or defaults.structure_module.num_layers
    scale = setting(settings, "trunk", "structure_module", "trans_scale_factor")
    return ESMFoldConfig(
        lm=encoder,
        trunk=TrunkConfig(
            num_blocks=_count(state, r"trunk\.blocks\.(\d+)\."),
            single_dim=single_dim,
            pair_dim=pair_dim,
            single_head_dim=single_dim // single_heads,
            pair_head_dim=pair_dim // pair_heads,
            position_bins=(shape("trunk.pairwise_positional_embedding.embedding.weight")[0] - 2) // 2,
            max_recycles=int(max_recycles),
            structure_module=StructureModuleConfig(
                single_dim=shape("trunk.trunk2sm_s.weight")[0],
                pair_dim=shape("trunk.trunk2sm_z.weight")[0],
                ipa_dim=shape(f"{module}ipa.linear_q.weight")[0] // heads,
                num_heads=heads,
                num_qk_points=qk_points,
                num_v_points=shape(f"{module}ipa.linear_kv_points.weight")[0] // (3 * heads) - qk_points,
                resnet_dim=shape(f"{module}angle_resnet.linear_in.weight")[0],
                num_resnet_blocks=_count(state, r"trunk\.structure_module\.angle_resnet\.layers\.(\d+)\."),
                num_transition_layers=_count(state, r"trunk\.structure_module\.transition\.layers\.(\d+)\."),
                num_layers=int(num_layers),
                num_angles=shape(f"{module}angle_resnet.linear_out.weight")[0] // 2,
                translation_scale=float(scale or defaults.structure_module.translation_scale),
            ),
        ),
        plddt_hidden_dim=shape("lddt_head.1.weight")[0],
    )


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    numbers = {int(match[1]) for name in state if (match := re.match(pattern, name))}
    return len(numbers)


def _shape_source(path: Path, state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise ProtquantError(f"{path}: the tensor {name} is missing; fetch the checkpoint again, whole.")
    return state[name]
