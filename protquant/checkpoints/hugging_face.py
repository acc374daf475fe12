"""Load checkpoints of transformers (`EsmForMaskedLM`, `EsmModel`, `EsmForProteinFolding`) from a folder or the hub."""

import logging
import os
import re
from dataclasses import replace
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from torch import Tensor

from protquant.checkpoints.assemble import rotary_frequencies
from protquant.checkpoints.float_checkpoint import FloatCheckpoint
from protquant.checkpoints.foreign import refuse_other_models, unwrapped
from protquant.checkpoints.hugging_face_config import esm2_config, esmfold_config, read_config
from protquant.checkpoints.names import HUGGING_FACE_ESM2, HUGGING_FACE_ESMFOLD, RenameTable
from protquant.checkpoints.registry import LAYOUTS, Layout
from protquant.checkpoints.weight_files import read_safetensors, read_shards, read_torch_weights
from protquant.errors import ProtquantError
from protquant.files.plain_data import parse_json
from protquant.models import ESM2, ESMFold, ProteinModel
from protquant.models.registry import empty_model

__all__ = ["IGNORED", "NotDownloadedError", "is_hub_name", "load_hugging_face", "open_hugging_face"]

log = logging.getLogger(__name__)

# The tensors of a checkpoint that are ignored, each with the reason.
IGNORED: dict[str, str] = {
    r"esm\.embeddings\.position_ids": "a row of numbers from 0",
    r"esm\.embeddings\.position_embeddings\.weight": "made by older transformers, never used with rotary positions",
    r"esm\.pooler\.dense\.(weight|bias)": "for classifiers of whole sequences; ESM-2 was trained without",
    r"classifier\.(.+\.)?(weight|bias)": "the head of a classifier, of which the encoder is read",
    r"af2_to_esm": "the alphabet, which is fixed",
    r"trunk\.structure_module\.(default_frames|group_idx|atom_mask|lit_positions)": "constants of chemistry",
}
_ROTARY = re.compile(r"esm\.(encoder\.layer\.[\d*]+\.attention\.self\.)?rotary_embeddings\.inv_freq")
_EMBEDDING, _TIED = "esm.embeddings.word_embeddings.weight", "lm_head.decoder.weight"
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
# Two steps, because a repository often has the same weights in both forms: the second only if the first is absent.
_SAFETENSORS = ["config.json", "*.safetensors", "*.safetensors.index.json"]
_PYTORCH = ["config.json", "pytorch_model*.bin", "pytorch_model.bin.index.json"]


class NotDownloadedError(ProtquantError):
    """The checkpoint is not in the download cache and cannot be fetched; `reason` is the message of the hub client."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"{name}: not in the cache of downloads, and cannot be fetched from the hub ({reason})."
            " Check the name and the network (HF_HUB_OFFLINE, HF_ENDPOINT, HF_HOME), or give a folder that holds"
            " the checkpoint."
        )
        self.reason = reason


def is_hub_name(name: str) -> bool:
    """Return whether `name` has the form of a name on the hub, `owner/name`."""
    return _HUB_NAME.fullmatch(name) is not None


def load_hugging_face(
    path_or_name: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool | None = None
) -> ProteinModel:
    """Load a checkpoint of transformers in float32 on the CPU; see `open_hugging_face` for the parameters.

    Returns
    -------
    ProteinModel
        The model has only the heads of the checkpoint: see `model.config.has_lm_head` and `has_contact_head`.
    """
    return open_hugging_face(path_or_name, revision=revision, local_files_only=local_files_only).load()


def open_hugging_face(
    path_or_name: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool | None = None
) -> FloatCheckpoint:
    """Open a checkpoint of transformers; its weights are mapped, not read.

    Parameters
    ----------
    path_or_name : str or PathLike
        A folder with `config.json` and weights (safetensors or `pytorch_model.bin`, whole or in shards), or a
        name on the hub such as `facebook/esmfold_v1`.
    revision : str, optional
        Branch, tag or commit on the hub.
    local_files_only : bool, optional
        Use only the download cache, never the network; `HF_HUB_OFFLINE` and `HF_HOME` have an effect as well.

    Raises
    ------
    ProtquantError
        If the checkpoint cannot be found or read, is not supported, or has missing, surplus or wrongly shaped tensors.
    """
    folder, source = Path(path_or_name), str(path_or_name)
    if not folder.is_dir():
        if not is_hub_name(source):
            raise ProtquantError(f"{source}: no such folder, and not a name on the hub (owner/name).")
        folder = _download(source, revision, bool(local_files_only))
        source = f"{source}@{revision}" if revision else source
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".bin"))
    if layout := _registered_layout(folder / "config.json"):
        return _open_registered(layout, folder, source, files)
    settings = read_config(folder / "config.json")
    weights = unwrapped(_read_weights(folder), source)
    refuse_other_models(weights, source)
    if any(name.startswith("classifier.") for name in weights):
        log.warning("%s: is a classifier; its encoder is read, and its head is not", source)
    state = _named_as_masked_lm(weights, source)
    _drop_tied(state, source)
    rotary = {name: state.pop(name) for name in list(state) if _ROTARY.fullmatch(name)}
    try:
        encoder = esm2_config(settings)
        folding = esmfold_config(settings) if settings.is_folding_model else None
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ProtquantError(f"{folder / 'config.json'}: the sizes do not go together ({error}).") from error
    encoder = replace(
        encoder,
        rotary_frequencies=rotary_frequencies(rotary, encoder, source, settings.rope_theta),
        has_contact_head=any(name.startswith("esm.contact_head.") for name in state),
    )
    if folding:
        config = replace(folding, lm=replace(encoder, has_lm_head=False))
        return FloatCheckpoint(lambda: ESMFold(config), state, source, HUGGING_FACE_ESMFOLD, files=files)
    encoder = replace(encoder, has_lm_head=any(name.startswith("lm_head.") for name in state))
    return FloatCheckpoint(lambda: ESM2(encoder), state, source, HUGGING_FACE_ESM2, files=files)


def _registered_layout(path: Path) -> Layout | None:
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None  # `read_config` raises the error.
    name = content.get("model_type") if isinstance(content, dict) else None
    return LAYOUTS.get(name) if isinstance(name, str) else None


def _open_registered(layout: Layout, folder: Path, source: str, files: list[Path]) -> FloatCheckpoint:
    path = folder / "config.json"
    try:
        config = layout.sizes(parse_json(path.read_bytes()))
    except (KeyError, TypeError, ValueError) as error:
        raise ProtquantError(f"{path}: the sizes do not go together ({error}).") from error
    state = unwrapped(_read_weights(folder), source)
    return FloatCheckpoint(lambda: empty_model(config), state, source, RenameTable(layout.names), files=files)


def _download(name: str, revision: str | None, local_files_only: bool) -> Path:
    def fetch(patterns: list[str]) -> Path:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=local_files_only)
        )

    try:
        folder = fetch(_SAFETENSORS)
        return folder if any(folder.glob("*.safetensors")) else fetch(_PYTORCH)
    except (OSError, ValueError) as error:  # the hub client's errors derive from these
        reason = (str(error).splitlines() or [""])[0].strip() or type(error).__name__
        raise NotDownloadedError(name, reason) from error


def _read_weights(folder: Path) -> dict[str, Tensor]:
    readers = (
        ("model.safetensors.index.json", lambda path: read_shards(path, read_safetensors)),
        ("model.safetensors", read_safetensors),
        ("pytorch_model.bin.index.json", lambda path: read_shards(path, read_torch_weights)),
        ("pytorch_model.bin", read_torch_weights),
    )
    for name, read in readers:
        if (folder / name).is_file():
            return read(folder / name)
    raise ProtquantError(
        f"{folder}: no weights; expected one of {', '.join(name for name, _ in readers)} beside config.json."
    )


def _named_as_masked_lm(state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the tensors under the names of `EsmForMaskedLM` or `EsmForProteinFolding`, for any class and version."""
    bare = not any(name.startswith("esm.") for name in state)  # saved as `EsmModel`
    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        full = f"esm.{name}" if bare and not name.startswith(("lm_head.", "classifier.")) else name
        # Old versions of transformers have other names for the gain and bias of a LayerNorm.
        full = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", full))
        if any(re.fullmatch(pattern, full) for pattern in IGNORED):
            continue
        if full in named:
            raise ProtquantError(f"{source}: the tensor {full} is there twice, under two spellings; keep one.")
        named[full] = tensor
    return named


def _drop_tied(state: dict[str, Tensor], source: str) -> None:
    """Remove the decoder's copy of the token embedding; in ESM-2 both are one tensor."""
    decoder = state.pop(_TIED, None)
    if decoder is not None and _EMBEDDING in state and not torch.equal(decoder, state[_EMBEDDING]):
        raise ProtquantError(
            f"{source}: {_TIED} differs from {_EMBEDDING}. In ESM-2 they are one tensor; untied ones are not supported."
        )
