"""ESM-2 in other implementations and in our float model, with the same weights: logits of a padded batch."""

import copy
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from protquant.bench.workloads import LanguageWork
from protquant.checkpoints.names import FAIR_ESM_ESM2, HUGGING_FACE_ESM2
from protquant.errors import ProtquantError
from protquant.models import ESM2, ESM2Config
from protquant.models.alphabet import MASK, PAD
from protquant.running.random_weights import randomize

__all__ = ["hugging_face_esm2", "lm_baseline", "random_esm2", "run_logits"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def random_esm2(config: ESM2Config, seed: int = 0) -> ESM2:
    """Return ESM-2 in float32 with random weights, which depend on the seed only."""
    with torch.device("meta"):
        model = ESM2(config)
    model = model.to_empty(device="cpu")  # rotary frequencies are not random
    randomize(model, seed)
    return model.eval().requires_grad_(False)


def lm_baseline(name: str, model: ESM2, work: LanguageWork) -> Callable[[], Tensor]:
    """Return the timed run of one of `LM_BASELINES`, except esm-cpp.

    Parameters
    ----------
    model : ESM2
        Model in float32; baselines in float32 share its weights.

    Raises
    ------
    ProtquantError
        If a package is not installed.
    """
    whose, _, rest = name.partition("-")
    if whose == "transformers":
        dtype, _, attention = rest.partition("-")
        return _run_hugging_face(_cast(hugging_face_esm2(model, attention), _DTYPES[dtype]), work)
    if whose == "protquant":
        return run_logits(_cast(model, _DTYPES[rest]), work)
    if name == "torchao-int8":
        return _run_hugging_face(_torchao_int8(hugging_face_esm2(model, "sdpa")), work)
    return _run_fair_esm(model, work)


def run_logits(model: Any, work: LanguageWork) -> Callable[[], Tensor]:
    """Return the timed run of our ESM2, in float or on integers."""

    @torch.inference_mode()
    def run() -> Tensor:
        logits: Tensor = model.logits(work.tokens)
        return logits

    return run


def hugging_face_esm2(model: ESM2, attention: str) -> nn.Module:
    """Return `EsmForMaskedLM` of transformers, which shares the tensors of our model.

    Parameters
    ----------
    attention : str
        `eager` or `sdpa`.
    """
    from transformers import EsmConfig, EsmForMaskedLM  # noqa: PLC0415 (takes seconds)

    config = EsmConfig(
        vocab_size=model.config.vocab_size,
        mask_token_id=MASK,
        pad_token_id=PAD,
        hidden_size=model.config.dim,
        num_hidden_layers=model.config.num_layers,
        num_attention_heads=model.config.num_heads,
        intermediate_size=model.config.ffn_dim,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=model.config.layer_norm_eps,
        position_embedding_type="rotary",
        emb_layer_norm_before=False,
        token_dropout=model.config.token_dropout,
        attn_implementation=attention,
    )
    theirs: nn.Module = EsmForMaskedLM(config)
    theirs.load_state_dict(_renamed(model, HUGGING_FACE_ESM2.to_theirs), strict=False, assign=True)
    theirs.tie_weights()  # type: ignore[operator]  # transformers' own
    _check_all_assigned(theirs, model)
    # Rotary frequencies are not parameters: transformers made them on another device.
    theirs = theirs.to(next(model.parameters()).device)
    return theirs.eval().requires_grad_(False)


def _renamed(model: ESM2, rename: Callable[[str], str | None]) -> dict[str, Tensor]:
    state = {}
    for name, tensor in model.state_dict().items():
        renamed = rename(name)
        assert renamed is not None, name
        state[renamed] = tensor
    return state


def _check_all_assigned(theirs: nn.Module, ours: ESM2) -> None:
    """Check that every parameter of the other model is one of ours; otherwise we would time a different model."""
    known = {tensor.data_ptr() for tensor in ours.state_dict().values()}
    strange = [name for name, parameter in theirs.named_parameters() if parameter.data_ptr() not in known]
    if strange:
        raise RuntimeError(f"{len(strange)} parameters are not those of our model: {', '.join(strange[:3])}")


def _run_hugging_face(model: Any, work: LanguageWork) -> Callable[[], Tensor]:
    attention_mask = work.valid.long()

    @torch.inference_mode()
    def run() -> Tensor:
        logits: Tensor = model(input_ids=work.tokens, attention_mask=attention_mask).logits
        return logits

    return run


def _run_fair_esm(model: ESM2, work: LanguageWork) -> Callable[[], Tensor]:
    try:
        from esm.model import esm2 as fair_esm  # type: ignore[import-untyped]  # noqa: PLC0415 (optional)
    except ModuleNotFoundError as error:
        raise ProtquantError("not installed: pip install fair-esm") from error
    config = model.config
    theirs = fair_esm.ESM2(config.num_layers, config.dim, config.num_heads, token_dropout=config.token_dropout)
    state = _renamed(model, FAIR_ESM_ESM2.to_theirs)
    state["lm_head.weight"] = state["embed_tokens.weight"]
    theirs.load_state_dict(state, strict=False, assign=True)
    _check_all_assigned(theirs, model)
    theirs = theirs.eval().requires_grad_(False).to(work.tokens.device)

    @torch.inference_mode()
    def run() -> Tensor:
        logits: Tensor = theirs(work.tokens)["logits"]
        return logits

    return run


def _torchao_int8(model: nn.Module) -> nn.Module:
    try:
        torchao: Any = importlib.import_module("torchao.quantization")
    except ModuleNotFoundError as error:
        raise ProtquantError("not installed: pip install torchao") from error
    # New modules around the same tensors: the modules of the float model must not change.
    model = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    torchao.quantize_(model, torchao.Int8DynamicActivationInt8WeightConfig())
    return model


def _cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    return model if dtype == torch.float32 else copy.deepcopy(model).to(dtype)
