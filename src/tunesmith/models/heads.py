"""Bases with a task's head on them, by transformers' Auto classes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.errors import ModelError
from tunesmith.models import layers, safety
from tunesmith.models.foreign_adapters import require_places
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import Base

IMAGE_PROCESSOR_FILE = "preprocessor_config.json"
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
"""Without any of these transformers makes an empty tokenizer, to which every word is unknown."""


def load_tokenizer(folder: Path) -> Any:
    """The folder's own tokenizer; one without a padding token pads with its end token."""
    from transformers import AutoTokenizer

    if not any(file for pattern in TOKENIZER_FILES for file in folder.glob(pattern)):
        raise ModelError("no tokenizer", str(folder), f"one of {', '.join(TOKENIZER_FILES)} should be there")
    with safety.opening(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, config=safety.read_config(folder))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_image_processor(folder: Path) -> Any:
    """The folder's own preparation of images. The same library on every machine: another gives other pixels."""
    from transformers import AutoImageProcessor

    if not (folder / IMAGE_PROCESSOR_FILE).is_file():
        remedy = f"{IMAGE_PROCESSOR_FILE} should be there; a model for texts has none"
        raise ModelError("no preparation of images: not a model for images", str(folder), remedy)
    with safety.opening(folder):
        return AutoImageProcessor.from_pretrained(folder, config=safety.read_config(folder), backend="pil")


@dataclass(frozen=True)
class HeadKind:
    """A kind of head in transformers' words: its Auto class, what its model classes are called by, what the config
    says of the problem; and what prepares a row for the model."""

    auto: str
    suffix: str
    problem_type: str | None = None
    load_processor: Callable[[Path], Any] = load_tokenizer


SEQUENCES = HeadKind("AutoModelForSequenceClassification", "ForSequenceClassification", "single_label_classification")
TOKENS = HeadKind("AutoModelForTokenClassification", "ForTokenClassification")
QUESTIONS = HeadKind("AutoModelForQuestionAnswering", "ForQuestionAnswering")
IMAGES = HeadKind("AutoModelForImageClassification", "ForImageClassification", load_processor=load_image_processor)


def load_classifier(
    base: Base,
    labels: Sequence[str],
    seed: int,
    dtype: torch.dtype,
    kind: HeadKind,
    bias: Sequence[float] | None = None,
) -> Loaded:
    """A base with a linear head of one output for each of `labels`; the config carries their names, and the kind of
    problem.

    A head that the base already has for these very labels is kept; any other is drawn anew from `seed`, and begins with
    this bias if one is given and the head has one.
    """
    quiet_library()
    processor = kind.load_processor(base.folder)

    # what the base's weights lack (a pooler) is drawn as it was when the adapter on it was trained
    drawn_with = int(base.card.get("seed", seed)) if base.adapters else seed

    def open_for(names: Sequence[str], keep_head: bool) -> nn.Module:
        model = _open(base, names, processor, drawn_with, dtype, keep_head, kind)
        if bias is not None and not keep_head:
            _set_bias(model, bias)
        return model

    def make() -> nn.Module:
        had = _labels_of(base, kind)
        if not base.adapters or had in ([], list(labels)):
            return merged(open_for(labels, keep_head=had == list(labels)), base)
        # an adapter was made for a head of other labels: merge it there, then take the body alone
        whole = merged(open_for(had, keep_head=True), base)
        model = open_for(labels, keep_head=False)
        prefix = layers.body_prefix(model)
        getattr(model, prefix).load_state_dict(getattr(whole, prefix).state_dict())
        return model

    model = make()
    is_drawn = _labels_of(base, kind) != list(labels)
    return Loaded(model, processor, layers.head_names(model), tuple(labels), base, reload=make, head_is_drawn=is_drawn)


def quiet_library() -> None:
    """Keep transformers' bars and load reports out of our output: what is new in a model is said by ourselves."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _labels_of(base: Base, kind: HeadKind) -> list[str]:
    """The labels of the classifier of this kind that a base comes with; none if it comes without one."""
    config = safety.read_config(base.folder)
    is_classifier = any(kind.suffix in name for name in (config.architectures or ()))
    if base.card.get("labels") and (is_classifier or base.adapters):
        return [str(label) for label in base.card["labels"]]
    return [str(label) for label in (config.id2label or {}).values()] if is_classifier else []


def _open(
    base: Base,
    labels: Sequence[str],
    processor: Any,
    seed: int,
    dtype: torch.dtype,
    keep_head: bool,
    kind: HeadKind,
) -> nn.Module:
    import transformers

    config = safety.read_config(base.folder)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    if kind.problem_type is not None:
        config.problem_type = kind.problem_type
    if getattr(config, "pad_token_id", None) is None and hasattr(processor, "pad_token_id"):
        config.pad_token_id = processor.pad_token_id
    with torch.random.fork_rng(devices=[]), safety.opening(base.folder):
        torch.manual_seed(seed)  # whatever the weights lack (a pooler, say) is drawn from this
        model, info = getattr(transformers, kind.auto).from_pretrained(
            base.folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    require_body(model, info, base.folder)
    if not keep_head:
        _draw_head(model, seed)
    return model


def require_body(model: nn.Module, info: Mapping[str, Any], folder: Path, but: tuple[str, ...] = ()) -> None:
    """Only a head (or the parts named by `but`) may be new: a body that the weights do not fill would train from noise
    without a word."""
    unfilled = [*info["missing_keys"], *(item[0] for item in info["mismatched_keys"])]
    lost = sorted(name for name in unfilled if not layers.under(name, (*layers.head_names(model), *but)))
    if lost:
        raise ModelError(
            f"the weights do not fit the config: {len(lost)} tensors of the body are missing or of another shape "
            f"(the first: {', '.join(lost[:3])})",
            str(folder),
            "config.json and the weights must be of one model",
        )


def _draw_head(model: nn.Module, seed: int) -> None:
    """Fill the modules beside the body from a generator of their own, so that nothing drawn before matters."""
    generator = torch.Generator().manual_seed(seed)
    deviation = float(getattr(model.config, "initializer_range", 0.02))
    prefix = layers.body_prefix(model)
    with torch.no_grad():
        for name, child in model.named_children():
            if name == prefix:
                continue
            for module in child.modules():
                if isinstance(module, nn.Linear):
                    module.weight.normal_(0.0, deviation, generator=generator)
                    if module.bias is not None:
                        module.bias.zero_()


def _set_bias(model: nn.Module, bias: Sequence[float]) -> None:
    """Give the last layer of a new head its bias; a head without one (as decoders have) stays as it is."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    outputs = [module for module in linear if module.out_features == len(bias)]
    if outputs and outputs[-1].bias is not None:
        with torch.no_grad():
            outputs[-1].bias.copy_(torch.tensor(bias))


def merged(model: nn.Module, base: Base) -> nn.Module:
    """Merge the adapters of a base that is itself an adapter run."""
    for adapter in base.adapters:
        from peft import PeftModel

        with safety.opening(adapter), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found missing adapter keys")  # these are refused below
            wrapped = PeftModel.from_pretrained(model, str(adapter))
            require_places(adapter, wrapped)
            model = without_adapter(wrapped)
    return model


def without_adapter(model: Any) -> nn.Module:
    """The plain model with an adapter's updates in its weights, and the head that was trained beside it."""
    put_heads_in_place(model)
    merged_model: nn.Module = model.merge_and_unload()
    return merged_model


def put_heads_in_place(model: Any) -> nn.Module:
    """Put heads that were trained beside an adapter where the base has its own: PEFT itself does that only for heads of
    a single layer, under some kinds of adapter. Returns the model inside, with the adapter still on it."""
    from peft.utils import ModulesToSaveWrapper

    plain: nn.Module = model.get_base_model()
    wrapped = [(name, module) for name, module in plain.named_modules() if isinstance(module, ModulesToSaveWrapper)]
    for name, module in wrapped:
        parent, _, last = name.rpartition(".")
        setattr(plain.get_submodule(parent), last, module.modules_to_save["default"])
    return plain
