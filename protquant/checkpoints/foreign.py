"""What training programs leave in a checkpoint: prefixes of names, which are taken off, and models of other kinds."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from protquant.errors import ProtquantError
from protquant.files.plain_data import parse_json

__all__ = ["refuse_adapter", "refuse_other_models", "unwrapped"]

# DataParallel, PEFT, and the model of a Lightning module: before all names.
_WRAPPERS = ("module.", "base_model.model.", "model.")
# torch.compile, FSDP, checkpointing of activations: anywhere in a name.
_INNER_WRAPPERS = re.compile(r"(^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
_MERGE = (
    "merge it into its model first: `AutoPeftModel.from_pretrained(FOLDER).merge_and_unload().save_pretrained(MERGED)`,"
    " with the class of the model (AutoPeftModelForTokenClassification and so on)"
)
# By a part of the name of a tensor: what has it, and what to do.
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
    """The tensors by the model's own names, without what programs have put before most of them.

    Raises
    ------
    ProtquantError
        If two tensors come to one name.
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
    """Refuse weights of a kind that is known, and not read.

    Raises
    ------
    ProtquantError
        Says what they are of.
    """
    for pattern, what, remedy in _OTHERS:
        if any(re.search(pattern, name) for name in names):
            raise ProtquantError(f"{source}: is {what}; {remedy or _READ}.")


def refuse_adapter(folder: Path) -> None:
    """Refuse a folder of PEFT, which has an adapter and no model.

    Raises
    ------
    ProtquantError
        Names the model that the adapter belongs to, if it says so.
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
