"""Virtual tokens before every row on a frozen body, by PEFT: prefix tuning (keys and values in every layer) and prompt
tuning (embeddings alone).

Many architectures cannot take them, and with some the answer to a row then depends on the rows beside it without a
word. So each model is tried out on two short texts before anything is trained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tunesmith.errors import ModelError
from tunesmith.methods.adapters import AdapterTuning
from tunesmith.models.loaded import Loaded, as_base
from tunesmith.recipe.methods import Prefix, Prompt

KINDS_OF_TASK = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "MTModel": "SEQ_2_SEQ_LM",
    "ForMaskedLM": "FEATURE_EXTRACTION",
}
"""How PEFT passes virtual tokens on, by how a model's class is called."""

READS_EVERY_TOKEN = ("TOKEN_CLS", "QUESTION_ANS", "CAUSAL_LM", "FEATURE_EXTRACTION")
"""Where outputs stand for tokens, so that those of virtual tokens must go."""

LEAST_DIFFERENCE = 1e3
"""Two ways to compute one answer may differ by so many times the precision."""


class VirtualTokens(AdapterTuning):
    """What both share."""

    settings: Prefix | Prompt
    opens_to_train = False

    def apply(self, loaded: Loaded) -> Loaded:
        return self._tried_out(super().apply(self._require_class(loaded)))

    def open(self, loaded: Loaded, folder: Any) -> Loaded:
        kind = self._kind_of_task(loaded)
        super().open(loaded, folder)
        self._say_positions(loaded, kind)
        return loaded

    def merge(self, loaded: Loaded) -> nn.Module:
        """Refused: nothing of the base's weights was changed.

        Raises:
            ModelError: always.
        """
        message = f"method: {self.settings.kind}: virtual tokens are no part of the base's weights, so cannot be merged"
        raise ModelError(message, loaded.base.reference, "keep the adapter beside its base, or use lora")

    def _kind_of_task(self, loaded: Loaded) -> str:
        name = type(loaded.model).__name__
        return next((kind for ending, kind in KINDS_OF_TASK.items() if name.endswith(ending)), "")

    def _require_class(self, loaded: Loaded) -> Loaded:
        if not self._kind_of_task(loaded) or not hasattr(loaded.processor, "convert_ids_to_tokens"):
            message = f"method: {self.settings.kind}: a {type(loaded.model).__name__} takes no virtual tokens"
            raise ModelError(message, loaded.base.reference, REMEDY)
        return loaded

    def _say_positions(self, loaded: Loaded, kind: str) -> None:
        """Tell who reads the outputs how many of them stand for no token. Where PEFT leaves segment ids out, with a
        warning, they are all 0."""
        loaded.unread = ("token_type_ids",) if kind in ("CAUSAL_LM", "FEATURE_EXTRACTION") else ()

    @torch.no_grad()
    def _tried_out(self, loaded: Loaded) -> Loaded:
        """Refuse a model that fails, whose answer does not depend on the virtual tokens, or depends on padding.

        Raises:
            ModelError: with what was found.
        """
        model: Any = loaded.model.eval()
        kind = str(model.peft_config["default"].task_type)
        self._say_positions(loaded, kind)
        try:
            together = _answers(loaded, kind, ["a b c d e f", "a b"])
            alone = _answers(loaded, kind, ["a b"])[0]
            with as_base(loaded):
                plain = _answers(loaded, kind, ["a b"])[0]
        except Exception as error:
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            raise self._refusal(loaded, f"it does not take them ({reason})") from error
        allowed = LEAST_DIFFERENCE * torch.finfo(alone.dtype).eps * max(1.0, float(alone.abs().max()))
        beside = together[1][: len(alone)] if alone.ndim > 1 or kind == "QUESTION_ANS" else together[1]
        if beside.shape != plain.shape or float((beside - alone).abs().max()) > allowed:
            raise self._refusal(loaded, "its answer to a row would depend on the padding beside it")
        if float((alone - plain).abs().max()) == 0:
            raise self._refusal(loaded, "they change nothing of what it computes")
        return loaded

    def _refusal(self, loaded: Loaded, why: str) -> ModelError:
        kind = loaded.model.get_base_model().__class__.__name__  # type: ignore[operator]
        return ModelError(f"method: {self.settings.kind}: no virtual tokens for a {kind}: {why}",
                          loaded.base.reference, REMEDY)  # fmt: skip


REMEDY = "use lora, or ia3"


def _answers(loaded: Loaded, kind: str, texts: list[str]) -> torch.Tensor:
    """(B, ..) what the model makes of texts, padded on the right."""
    tokens = loaded.processor(texts, padding=True, padding_side="right", return_tensors="pt")
    inputs = {name: tokens[name].to(loaded.device) for name in ("input_ids", "attention_mask")}
    if kind == "SEQ_2_SEQ_LM":
        inputs["decoder_input_ids"] = inputs["input_ids"][:, :1]
    output = loaded(**inputs)
    found: torch.Tensor = output["start_logits" if kind == "QUESTION_ANS" else "logits"]
    return found


class PrefixTuning(VirtualTokens):
    """`tokens` keys and values before those of each row in every layer, drawn from a normal distribution: 2 x tokens x
    layers x width of the keys numbers.

    Source: Li and Liang 2021, arXiv:2101.00190, without the network that makes them in the paper.
    """

    settings: Prefix

    def config(self, loaded: Loaded) -> Any:
        from peft import PrefixTuningConfig

        config: Any = loaded.model.config
        heads = config.num_attention_heads
        width = getattr(config, "d_kv", None) or getattr(config, "head_dim", None) or config.hidden_size // heads
        depth = next(
            (getattr(config, name) for name in ("num_decoder_layers", "decoder_layers") if hasattr(config, name)),
            config.num_hidden_layers,
        )
        return PrefixTuningConfig(
            task_type=self._kind_of_task(loaded),
            num_virtual_tokens=self.settings.tokens,
            token_dim=heads * width,
            num_attention_heads=heads,
            num_layers=depth,
        )


class PromptTuning(VirtualTokens):
    """`tokens` embeddings before those of each row: tokens x width of the embedding numbers.

    They begin as embeddings of tokens of the vocabulary, drawn at random. Source: Lester et al. 2021, arXiv:2104.08691.
    """

    settings: Prompt

    def config(self, loaded: Loaded) -> Any:
        from peft import PromptTuningConfig

        model: Any = loaded.model
        return PromptTuningConfig(
            task_type=self._kind_of_task(loaded),
            num_virtual_tokens=self.settings.tokens,
            prompt_tuning_init="SAMPLE_VOCAB",
            token_dim=model.get_input_embeddings().embedding_dim,
            num_attention_heads=model.config.num_attention_heads,
            num_layers=model.config.num_hidden_layers,
            num_transformer_submodules=1,
        )

    def _say_positions(self, loaded: Loaded, kind: str) -> None:
        super()._say_positions(loaded, kind)
        loaded.virtual_tokens = self.settings.tokens if kind in READS_EVERY_TOKEN else 0
