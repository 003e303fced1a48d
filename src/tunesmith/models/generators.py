"""Bases that write: an encoder with a decoder, or a decoder alone that goes on with a prompt."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tunesmith.errors import ModelError
from tunesmith.models import heads, safety
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base

TOKENS_OF_WRITING = (
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id",
    "forced_eos_token_id", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens",
)  # fmt: skip
"""What of a base's own settings of generation is kept: which tokens begin and end a text, and which never stand in one.
Sampling, lengths and penalties are choices of another task."""


def load_generator(base: Base, seed: int, dtype: torch.dtype) -> Loaded:
    """A base that writes, with the output layer that it was trained with; no weight of it is new.

    Raises:
        ModelError: the base has no decoder, lacks weights, or its tokenizer has no token that ends a text.
    """
    heads.quiet_library()
    processor = heads.load_tokenizer(base.folder)
    auto = _auto_class(base)

    def make() -> nn.Module:
        return heads.merged(_open(base, auto, dtype, processor), base)

    model = make()
    outputs: Any = model.get_output_embeddings()  # type: ignore[operator]
    head = tuple(name for name, module in model.named_modules() if module is outputs)
    return Loaded(model, processor, head, ("text",), base, reload=make, head_is_new=False)


def goes_on(model: nn.Module) -> bool:
    """Whether a model goes on with a prompt (a decoder alone) rather than reads it with an encoder."""
    return not getattr(model.config, "is_encoder_decoder", False)


def end_of(model: nn.Module) -> int:
    """The token that ends a text."""
    config: Any = model.generation_config
    end = config.eos_token_id
    return int(end[0] if isinstance(end, list) else end)


def _auto_class(base: Base) -> str:
    """By what transformers knows the architecture for. An encoder that is only let go as a decoder would see the very
    tokens that it is to write."""
    from transformers.models.auto import modeling_auto as known

    config = safety.read_config(base.folder)
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False) and kind in known.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return "AutoModelForSeq2SeqLM"
    if kind in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "AutoModelForCausalLM"
    remedy = "take a base with a decoder: T5, BART or Marian, or a decoder such as Llama or GPT-2"
    raise ModelError(f"a model that writes no texts ({kind})", str(base.folder), remedy)


def _open(base: Base, auto: str, dtype: torch.dtype, processor: Any) -> nn.Module:
    import transformers

    with safety.opening(base.folder):
        model, info = getattr(transformers, auto).from_pretrained(
            base.folder,
            config=safety.read_config(base.folder),
            dtype=dtype,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    unfilled = sorted({*info["missing_keys"], *(item[0] for item in info["mismatched_keys"])})
    if unfilled:
        said = f"the weights do not fit: {len(unfilled)} tensors are missing or of another shape"
        remedy = "take the whole model, with its output layer: one that was saved without it has not learned to write"
        raise ModelError(f"{said} (the first: {', '.join(unfilled[:3])})", str(base.folder), remedy)
    model.generation_config = _plain_generation(model, processor, base)
    return model


def _plain_generation(model: nn.Module, processor: Any, base: Base) -> Any:
    """Settings under which `generate` takes the likeliest tokens and nothing else."""
    from transformers import GenerationConfig

    was = model.generation_config
    kept = {name: getattr(was, name, None) for name in TOKENS_OF_WRITING}
    ends = (kept["eos_token_id"], processor.eos_token_id, processor.sep_token_id)
    kept["eos_token_id"] = next((end for end in ends if end is not None), None)
    if kept["eos_token_id"] is None:
        message = "neither model nor tokenizer has a token that ends a text: it would never stop writing"
        raise ModelError(message, str(base.folder), "name one: `eos_token_id` in config.json")
    kept["pad_token_id"] = processor.pad_token_id if kept["pad_token_id"] is None else kept["pad_token_id"]
    return GenerationConfig(do_sample=False, **{name: value for name, value in kept.items() if value is not None})
