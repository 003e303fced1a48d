"""Bases that go on with a text or fill its gaps, and new tokens for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from tunesmith.errors import ModelError
from tunesmith.models import safety
from tunesmith.models.heads import load_tokenizer, merged, quiet_library, require_body
from tunesmith.models.layers import head_names, under
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base

AUTO_CLASSES = {"masked": "AutoModelForMaskedLM", "causal": "AutoModelForCausalLM"}


def load_language_model(
    base: Base, objective: Literal["masked", "causal"], words: Sequence[str], seed: int, dtype: torch.dtype
) -> Loaded:
    """A base with its own head over all tokens, or a new one where it has none (`Loaded.head_is_new`).

    Args:
        words: become tokens of their own, unless they are such already.

    Raises:
        ModelError: the architecture has no such head, the tokenizer nothing to hide a token behind; an adapter.
    """
    import transformers

    quiet_library()
    words = [*_require_language_adapter(base, objective), *words]
    _require_objective(base, objective)
    processor = load_tokenizer(base.folder)
    if objective == "masked" and processor.mask_token_id is None:
        message = "this tokenizer has no token to hide others behind"
        raise ModelError(message, str(base.folder), "task: {kind: language-modeling, objective: causal}")
    pieces = _pieces_of(words, processor)
    processor.add_tokens([_whole_word(word) for word in pieces])
    is_new = False

    def make() -> nn.Module:
        nonlocal is_new
        config = safety.read_config(base.folder)
        with torch.random.fork_rng(devices=[]), safety.opening(base.folder):
            torch.manual_seed(seed)
            model, info = getattr(transformers, AUTO_CLASSES[objective]).from_pretrained(
                base.folder, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True
            )
            is_new = any(under(name, head_names(model)) for name in info["missing_keys"])
            if pieces:
                _add_tokens(model, len(processor), list(pieces.values()))
        require_body(model, info, base.folder)
        return merged(model, base)

    model = make()
    return Loaded(model, processor, head_names(model), ("token",), base, reload=make, head_is_new=is_new)


def _require_language_adapter(base: Base, objective: str) -> Sequence[str]:
    """The words that became tokens of their own where an adapter of a base was trained.

    Raises:
        ModelError: the adapter was not trained as such a language model.
    """
    task = base.card.get("task") or {}
    if base.adapters and (task.get("kind"), task.get("objective")) != ("language-modeling", objective):
        message = f"its adapter was not trained for language-modeling with the objective {objective}"
        raise ModelError(message, base.reference, "take the base that the adapter was made for, or a run of `full`")
    return task.get("add_tokens", ()) if base.adapters else ()


def _require_objective(base: Base, objective: str) -> None:
    """Raise ModelError where a base cannot learn in this way."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as FILL_GAPS

    config = safety.read_config(base.folder)
    if objective == "causal" and _sees_both_sides(config):
        raise ModelError("this base fills gaps", str(base.folder), "task.objective: masked")
    if objective == "masked" and config.model_type not in FILL_GAPS:
        remedy = "task: {kind: language-modeling, objective: causal}"
        raise ModelError("this base goes on with texts, it fills no gaps", str(base.folder), remedy)


def _sees_both_sides(config: Any) -> bool:
    """Whether it is an encoder: let go as a decoder it would see the very tokens that it is asked for."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as FILL_GAPS

    is_decoder = getattr(config, "is_decoder", False) or getattr(config, "is_encoder_decoder", False)
    return "ForMaskedLM" in str(config.architectures) or (config.model_type in FILL_GAPS and not is_decoder)


def _whole_word(word: str) -> Any:
    from transformers import AddedToken

    return AddedToken(word, single_word=True, normalized=True)


def _pieces_of(words: Sequence[str], processor: Any) -> dict[str, list[int]]:
    """The tokens that each word is made of until now; words that are a single token already are left out."""
    known = processor.get_vocab()
    pieces = {word: processor(word, add_special_tokens=False)["input_ids"] for word in dict.fromkeys(words)}
    return {word: ids for word, ids in pieces.items() if word not in known and len(ids) > 1}


def _add_tokens(model: Any, size: int, pieces: Sequence[list[int]]) -> None:
    """Make room for new tokens; what belongs to each (embedding, output, bias) begins as the mean of its pieces'."""
    before = model.get_input_embeddings().num_embeddings
    model.resize_token_embeddings(max(size, before), mean_resizing=False)
    inside, outside = model.get_input_embeddings(), model.get_output_embeddings()
    tensors = [inside.weight]
    if outside is not None:
        tensors += [outside.weight] if outside.weight is not inside.weight else []
        tensors += [outside.bias] if getattr(outside, "bias", None) is not None else []
    first = size - len(pieces)
    with torch.no_grad():
        for tensor in tensors:
            for place, ids in enumerate(pieces, start=first):
                tensor[place] = tensor[torch.tensor(ids)].mean(dim=0)
