"""Train on the tokens that are there: no padding, and the last block only where its output is read.

A batch of ragged texts is mostly padding (three places in four, at worst), and a classifier reads one position of the
last block. Here all rows of a micro-batch lie end to end as one row of real tokens. Everything but attention works on
single positions and does not notice; attention runs once for each length that occurs, over rows of that length alone,
so it needs no mask. Same mathematics as the padded pass (class E1); with dropout the masks fall elsewhere (E2).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tunesmith.models import layers
from tunesmith.models.loaded import Loaded

COUNTS_POSITIONS_FROM_PADDING = {
    "bert": False,
    "electra": False,
    "roberta": True,
    "xlm-roberta": True,
    "camembert": True,
}
"""Model types whose blocks have BERT's parts under BERT's names and whose classifiers read the first position alone;
and whether their positions are counted from the padding id on, real tokens only, or from 0."""


@dataclass(frozen=True)
class Group:
    """Rows of one length, side by side: `rows` in the sorted batch, `tokens` in the flat one."""

    rows: slice
    tokens: slice
    length: int


@dataclass(frozen=True)
class Layout:
    """Where the rows of a batch lie when they are laid end to end, shortest first.

    Attributes:
        order: (B,) the rows, sorted by length.
        firsts: (B,) the flat position of each sorted row's first token.
        back: (B,) from a row to its place in `order`.
        groups: the rows of each length.
    """

    order: torch.Tensor
    firsts: torch.Tensor
    back: torch.Tensor
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, attention_mask: torch.Tensor) -> Layout:
        """Read a (B, T) mask of ones over each row's tokens."""
        lengths = attention_mask.sum(dim=1)
        order = torch.argsort(lengths, stable=True)
        ends = torch.cumsum(lengths[order], dim=0)
        groups: list[Group] = []
        row = token = 0
        found, many = torch.unique_consecutive(lengths[order], return_counts=True)
        for length, count in zip(found.tolist(), many.tolist(), strict=True):
            rows, tokens = slice(row, row + count), slice(token, token + count * length)
            groups.append(Group(rows, tokens, length))
            row, token = rows.stop, tokens.stop
        return cls(order, ends - lengths[order], torch.argsort(order), tuple(groups))


class FlatBatch:
    """The rewrite. `apply` changes how the model's forward runs, never a parameter or its name; `undo` gives it back.

    The model then takes the padded batch as before and gives the same logits. Between the two, `last_hidden_state`
    holds the first position alone: (B, 1, D).
    """

    name = "flat-batch"
    exactness = "E1, with dropout E2"

    def __init__(self) -> None:
        self.layout: Layout | None = None
        self.blocks: list[nn.Module] = []
        self.entry: Any = None

    @staticmethod
    def obstacle(loaded: Loaded, virtual_tokens: int = 0) -> str:
        """Why the model cannot be rewritten; empty if it can."""
        if virtual_tokens:
            return "the method puts virtual tokens before each row, which the flat batch has no place for"
        config: Any = loaded.model.config
        kind = getattr(config, "model_type", "")
        if kind not in COUNTS_POSITIONS_FROM_PADDING:
            return f"not made for models of type {kind} (yet for {', '.join(COUNTS_POSITIONS_FROM_PADDING)})"
        if not type(_plain(loaded.model)).__name__.endswith("ForSequenceClassification"):
            return "made for classifiers of whole texts, which read one position"
        if config.is_decoder or config.add_cross_attention or config.chunk_size_feed_forward:
            return "the model's config asks for a decoder, cross-attention or chunked feed-forward layers"
        return ""

    def apply(self, loaded: Loaded) -> None:
        model = _plain(loaded.model)
        self.counts_from_padding = COUNTS_POSITIONS_FROM_PADDING[model.config.model_type]
        self.padding_id = model.config.pad_token_id
        self.blocks = [block for _, block in layers.blocks(model)]
        for block in self.blocks:
            block.forward = partial(self._block, block, block is self.blocks[-1])
        self.entry = model.register_forward_pre_hook(self._lay_flat, with_kwargs=True)
        loaded.pads = False

    def undo(self, loaded: Loaded) -> None:
        for block in self.blocks:
            del block.forward
        self.blocks = []
        self.entry.remove()
        self.layout = None
        loaded.pads = True

    def _lay_flat(self, model: nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """From a padded batch to a flat one: every (B, T) tensor to (1, S), S the real tokens."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        self.layout = Layout.of(mask)
        real = mask[self.layout.order].bool()
        if self.counts_from_padding:
            counted = ids.ne(self.padding_id).long()
            positions = counted.cumsum(dim=1) * counted + self.padding_id
        else:
            positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        flat = {**inputs, "position_ids": positions}
        for name in ("input_ids", "token_type_ids", "position_ids"):
            if flat.get(name) is not None:
                flat[name] = flat[name][self.layout.order][real][None]
        return args, {**flat, "attention_mask": None}

    def _block(self, block: Any, is_last: bool, hidden_1SD: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """One block over the flat batch; the last one only at each row's first position, (B, 1, D) in row order."""
        assert self.layout is not None
        reads_1QD = hidden_1SD[:, self.layout.firsts] if is_last else hidden_1SD
        mixed_1QD = self._attend(block.attention.self, reads_1QD, hidden_1SD)
        mixed_1QD = block.attention.output(mixed_1QD, reads_1QD)
        output_1QD = block.output(block.intermediate(mixed_1QD), mixed_1QD)
        return output_1QD[0, self.layout.back, None] if is_last else output_1QD

    def _attend(self, attention: Any, reads_1QD: torch.Tensor, hidden_1SD: torch.Tensor) -> torch.Tensor:
        """Self-attention within each row. Letters: n rows of t tokens, H heads of d numbers."""
        assert self.layout is not None
        heads = (-1, attention.num_attention_heads, attention.attention_head_size)
        query_QHd = attention.query(reads_1QD).view(heads)
        key_SHd, value_SHd = attention.key(hidden_1SD).view(heads), attention.value(hidden_1SD).view(heads)
        one_each = len(query_QHd) != len(key_SHd)
        dropout = attention.dropout.p if attention.training else 0.0
        mixed = []
        for group in self.layout.groups:
            rows = group.rows.stop - group.rows.start
            query_nHtd = query_QHd[group.rows if one_each else group.tokens].unflatten(0, (rows, -1)).transpose(1, 2)
            key_nHtd = key_SHd[group.tokens].unflatten(0, (rows, -1)).transpose(1, 2)
            value_nHtd = value_SHd[group.tokens].unflatten(0, (rows, -1)).transpose(1, 2)
            mixed_nHtd = functional.scaled_dot_product_attention(
                query_nHtd, key_nHtd, value_nHtd, dropout_p=dropout, scale=attention.scaling
            )
            mixed.append(mixed_nHtd.transpose(1, 2).flatten(0, 1).flatten(1))
        return torch.cat(mixed)[None]


def _plain(model: nn.Module) -> Any:
    """The transformers model, a PEFT wrapper looked through."""
    unwrap = getattr(model, "get_base_model", None)
    return unwrap() if unwrap is not None else model
