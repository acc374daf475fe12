"""Remove the prefixes that training programs add to names of tensors, and refuse models of other kinds."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from protquant.errors import ProtquantError
from protquant.files.plain_data import parse_json

__all__ = ["refuse_adapter", "refuse_other_models", "unwrapped"]

# Prefixes of all names, from DataParallel, PEFT and Lightning modules.
_WRAPPERS = ("module.", "base_model.model.", "model.")
# Parts anywhere in a name, from torch.compile, FSDP and activation checkpointing.
_INNER_WRAPPERS = re.compile(r"(^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
_MERGE = (
    "merge it into its model first: `AutoPeftModel.from_pretrained(FOLDER).merge_and_unload().save_pretrained(MERGED)`,"
    " with the class of the model (AutoPeftModelForTokenClassification and so on)"
)
# Pattern of the names of tensors, the kind of model that has them, and the remedy.
_OTHERS = (
    (r"\.?lora_(A|B|embedding_A|embedding_B)\.", "a LoRA adapter", _MERGE),
    (r"\.(SCB|absmax|quant_map)$", "quantized by bitsandbytes", "give the model that it was made of"),
    (r"\.(qweight|qzeros)$", "quantized by GPTQ or AWQ", "give the model that it was made of"),
    (r"(^|\.)(msa_position_embedding|layers\.0\.row_self_attention\.)", "an MSA Transformer", ""),
    (r"\.attn\.layernorm_qkv\.", "an ESM C or ESM3", ""),
    (r"(^|\.)embed_positions\.weight$", "an ESM-1b or ESM-1v, whose positions are learned", ""),
    (r"(^|\.)embed_out$", "an ESM-1", ""),
)
_READ = "ESM-2 and ESMFold are read"


def unwrapped(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the tensors by the model's own names, without prefixes that most names have.

    Raises
    ------
    ProtquantError
        If two tensors get the same name.
    """
    names = {name: _INNER_WRAPPERS.sub("", name).lstrip(".") for name in state}
    while prefix := next((each for each in _WRAPPERS if _is_before_most(each, names.values())), None):
        names = {name: own.removeprefix(prefix) for name, own in names.items()}
    if twice := [own for own, count in Counter(names.values()).items() if count > 1]:
        raise ProtquantError(f"{source}: the tensor {twice[0]} is there twice, under two spellings; keep one.")
    return {own: state[name] for name, own in names.items()}


def _is_before_most(prefix: str, names: Collection[str]) -> bool:
    return sum(name.startswith(prefix) for name in names) > len(names) / 2


def refuse_other_models(names: Collection[str], source: str) -> None:
    """Refuse weights of known kinds of models that cannot be read.

    Raises
    ------
    ProtquantError
        If there are such weights; the message names the kind of model.
    """
    for pattern, what, remedy in _OTHERS:
        if any(re.search(pattern, name) for name in names):
            raise ProtquantError(f"{source}: is {what}; {remedy or _READ}.")


def refuse_adapter(folder: Path) -> None:
    """Refuse a PEFT folder, which has an adapter but no model.

    Raises
    ------
    ProtquantError
        If there is only an adapter; the message names its base model, if the folder does.
    """
    path = folder / "adapter_config.json"
    if not path.is_file() or (folder / "config.json").is_file():
        return
    try:
        found = parse_json(path.read_bytes())
        kind, base = found.get("peft_type") or "LoRA", found.get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        kind, base = "LoRA", None
    kind = "LoRA" if str(kind).upper() == "LORA" else kind
    raise ProtquantError(f"{folder}: is a {kind} adapter{f' of {base}' if base else ''}, and no model; {_MERGE}.")
