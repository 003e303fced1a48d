"""The kinds of method: which weights move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from tunesmith.recipe.base import Auto, HeldShare, KindOrMapping, PositiveInt, Settings, Share

DEVLIN = "Devlin et al. 2019, arXiv:1810.04805"


@dataclass(frozen=True)
class Facts:
    """What the rest of the program says of a kind of method.

    Attributes:
        words: what it is, in a clause.
        rate_factor: its usual highest rate as a multiple of that of full fine-tuning: fewer moving weights take more.
        usual_rates: the lowest and highest rate that nobody wonders at.
        source: where it, or its usual rates, come from.
        cited: the key of its paper among those that a manuscript can cite; "" for none.
        is_adapter: whether its result is kept without the weights of the base.
        not_for: kinds of task whose models cannot have it, whatever the base, and why not.
        is_base: whether its result can be the base of a further training.
    """

    words: str
    rate_factor: float
    usual_rates: tuple[float, float]
    source: str = DEVLIN
    cited: str = ""
    is_adapter: bool = False
    not_for: Mapping[str, str] = field(default_factory=dict)
    is_base: bool = True


class HeadFirst(Settings):
    """The head alone learns for a while on the frozen body, before the method begins."""

    epochs: Annotated[float, Field(gt=0, le=10_000)] = 5.0
    """Passes over the training rows; the body has no backward pass in them, so each costs about a third of a full
    one."""

    learning_rate: Annotated[float, Field(gt=0, le=10)] | Auto = "auto"
    """The highest rate of the head in them. `auto`: that of `method: head`."""


def _as_head_first(value: Any) -> Any:
    if value is True:
        return {}
    return {"epochs": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


class MethodSettings(Settings):
    """What all kinds of method have."""

    facts: ClassVar[Facts]

    @property
    def virtual_tokens(self) -> int:
        """How many tokens the method puts before each row, which takes as many of the model's places."""
        return 0


class Tuning(MethodSettings):
    """What every method may be joined with that moves more than the head."""

    layer_decay: Annotated[float, Field(ge=0.1, le=100)] | None = None
    """Layers nearer the input move slower: each layer's rate is that of the layer above it divided by this (2.6 in
    Howard and Ruder 2018, arXiv:1801.06146), or times this where it is below 1 (0.95 is the same as 1.053). The head
    has the full rate. null: one rate for all."""

    head_first: Annotated[HeadFirst, BeforeValidator(_as_head_first)] | None = None
    """Let a new head learn on the frozen body before the method begins, so that what a random head says does not spoil
    the body (Kumar et al. 2022, arXiv:2202.10054): `true`, a number of epochs, or both settings. null: all at once."""


class OwnWeights(Tuning):
    """Methods that move weights of the model itself, and may hold them to where they began."""

    mixout: HeldShare | None = None
    """At each step this share of the numbers of every linear layer that moves and came with the base is replaced by
    those it began with, and the rest scaled so that the mean stays (Lee et al. 2020, arXiv:1909.11299). null: none."""

    l2_sp: Annotated[float, Field(gt=0)] | None = None
    """Strength of a pull of the pre-trained weights towards where they began: half of it times the squared distance is
    added to the loss, in place of weight decay (Li et al. 2018, arXiv:1802.01483). null: no pull."""


class Full(OwnWeights):
    """Every weight moves."""

    facts = Facts("full fine-tuning (every weight moves)", 1.0, (1e-6, 1e-3))

    kind: Literal["full"] = "full"


class Head(MethodSettings):
    """Only the task's head (and the pooler that feeds it) moves; the body is frozen and runs without dropout."""

    facts = Facts("training of the head alone (the body is frozen)", 20.0, (1e-5, 5e-2))

    kind: Literal["head"] = "head"


class LastLayers(OwnWeights):
    """The head and the layers nearest to it move; all below are frozen and run without dropout."""

    facts = Facts("fine-tuning of the last layers and the head", 2.0, (1e-6, 2e-3))

    kind: Literal["last-layers"] = "last-layers"

    layers: PositiveInt = 2
    """How many layers, counted from the head down."""


class GradualUnfreezing(OwnWeights):
    """The head moves first, then the layers join from the head down; what has not joined is frozen and runs without
    dropout (Howard and Ruder 2018, arXiv:1801.06146)."""

    facts = Facts(
        "gradual unfreezing (layers join from the head down)",
        1.0,
        (1e-6, 1e-3),
        "Howard and Ruder 2018, arXiv:1801.06146",
        "howard2018ulmfit",
    )

    kind: Literal["gradual-unfreezing"] = "gradual-unfreezing"

    every: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    """Epochs after which one more layer joins. The paper: one."""

    until: HeldShare | None = None
    """The share of the steps after which all layers move; they then join at even distances, whatever `every` says.
    null: by `every`."""


class BitFit(Tuning):
    """Only biases move, and the head: for most models less than one number in a hundred (Ben Zaken et al. 2022,
    arXiv:2106.10199)."""

    facts = Facts(
        "BitFit (biases and the head move)",
        10.0,
        (1e-5, 1e-2),
        "Ben Zaken et al. 2022, arXiv:2106.10199",
        "benzaken2022bitfit",
    )

    kind: Literal["bitfit"] = "bitfit"


class LowRank(Tuning):
    """What all kinds of low-rank updates have."""

    facts = Facts("low-rank updates beside frozen weights", 10.0, (1e-5, 5e-3), is_adapter=True)

    rank: PositiveInt = 8
    """The rank r of each update."""

    alpha: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Updates are scaled by alpha / rank. `auto` is twice the rank."""

    dropout: Share = 0.0
    """Dropout on the input of each update."""

    target_modules: list[str] | Literal["auto", "all-linear"] = "auto"
    """Names (endings) of the layers to update. `auto` and `all-linear` take every linear layer of the body."""

    scaling: Literal["standard", "rank-stabilised"] = "standard"
    """`rank-stabilised` scales updates by alpha / sqrt(rank), so that a high rank learns as fast as a low one
    (Kalajdzievski 2023, arXiv:2312.03732)."""

    b_rate_factor: Annotated[float, Field(ge=1, le=1_000)] | None = None
    """The rate of the outer matrix B as a multiple of that of A; 16 is usual (LoRA+, Hayou et al. 2024,
    arXiv:2402.12354). null: one rate for both."""


class Lora(LowRank):
    """Low-rank updates beside frozen weights (Hu et al. 2021, arXiv:2106.09685), by PEFT and in its file format."""

    facts = replace(
        LowRank.facts,
        words="LoRA (low-rank updates beside frozen weights)",
        source="Hu et al. 2021, arXiv:2106.09685",
        cited="hu2022lora",
    )

    kind: Literal["lora"] = "lora"


class Dora(LowRank):
    """LoRA for the direction of each weight's rows, and a learned length for each of them (Liu et al. 2024,
    arXiv:2402.09353), by PEFT. Closer to full fine-tuning at low ranks; a step costs more than LoRA's."""

    facts = replace(
        LowRank.facts,
        words="DoRA (low-rank updates of directions beside learned lengths)",
        source="Liu et al. 2024, arXiv:2402.09353",
        cited="liu2024dora",
    )

    kind: Literal["dora"] = "dora"


class Qlora(LowRank):
    """LoRA beside weights that are kept in 4 bits (NF4 with double quantisation; Dettmers et al. 2023,
    arXiv:2305.14314), on CPU and GPU: an eighth of the memory that the body takes while training and answering. Loading
    needs all of it once. Asks for `pip install "tunesmith[quant]"`."""

    facts = replace(
        LowRank.facts,
        words="QLoRA (low-rank updates beside weights kept in 4 bits)",
        source="Dettmers et al. 2023, arXiv:2305.14314",
        cited="dettmers2023qlora",
        is_base=False,
    )

    kind: Literal["qlora"] = "qlora"


class Ia3(Tuning):
    """A learned factor for each number of keys, values and the inside of feed-forward layers: a tenth of LoRA's
    weights and fewer (Liu et al. 2022, arXiv:2205.05638), by PEFT and in its file format."""

    facts = Facts(
        "(IA)3 (learned factors on keys, values and feed-forward layers)",
        50.0,
        (1e-4, 5e-2),
        "Liu et al. 2022, arXiv:2205.05638",
        "liu2022ia3",
        is_adapter=True,
    )

    kind: Literal["ia3"] = "ia3"

    target_modules: list[str] | Auto = "auto"
    """Names (endings) of the layers whose outputs are scaled. `auto`: those that make keys and values."""

    feedforward_modules: list[str] | Auto = "auto"
    """Names (endings) of the layers whose inputs are scaled; `[]` for none. `auto`: the second layer of each
    feed-forward part."""


class VirtualTokens(MethodSettings):
    """Methods that put learned tokens before each row."""

    facts = Facts(
        "learned tokens before each row",
        50.0,
        (1e-4, 1e-1),
        is_adapter=True,
        is_base=False,
        not_for=dict.fromkeys(("sentence-similarity", "image-classification"), "its models take no virtual tokens"),
    )

    tokens: Annotated[int, Field(ge=1, le=1_000)] = 20
    """How many. Each takes a place from the rows' own tokens."""

    @property
    def virtual_tokens(self) -> int:
        return self.tokens


class Prefix(VirtualTokens):
    """Learned keys and values before those of each row, in every layer of a frozen body (Li and Liang 2021,
    arXiv:2101.00190), by PEFT and in its file format."""

    facts = replace(
        VirtualTokens.facts,
        words="prefix tuning (learned keys and values before each row)",
        source="Li and Liang 2021, arXiv:2101.00190",
        cited="li2021prefix",
    )

    kind: Literal["prefix"] = "prefix"


class Prompt(VirtualTokens):
    """Learned embeddings before those of each row on a frozen body (Lester et al. 2021, arXiv:2104.08691), by PEFT and
    in its file format. The fewest weights of all methods; small models learn little by it."""

    facts = replace(
        VirtualTokens.facts,
        words="prompt tuning (learned embeddings before each row)",
        rate_factor=100.0,
        usual_rates=(1e-4, 5e-1),
        source="Lester et al. 2021, arXiv:2104.08691",
        cited="lester2021prompt",
    )

    kind: Literal["prompt"] = "prompt"


class Bottlenecks(Tuning):
    """What both kinds of bottleneck have."""

    size: PositiveInt = 64
    """Numbers at the narrow place of a bottleneck. With d numbers a position it has 2 d size + size + d weights."""

    activation: Literal["relu", "gelu", "swish"] = "gelu"
    """What bends the numbers at the narrow place."""

    norms: bool = False
    """Whether the scales and shifts of the blocks' norms move, too."""


class Houlsby(Bottlenecks):
    """Bottlenecks behind attention and behind the feed-forward part of every block; these, the blocks' norms and the
    head move (Houlsby et al. 2019, arXiv:1902.00751). Its usual rate is 20 times that of full fine-tuning: of 5, 10 and
    20 times, 20 learned fastest on 684 rows of BANKING77 (MiniLM, 4 epochs: accuracy 0.24, 0.39, 0.60)."""

    facts = Facts(
        "Houlsby adapters (bottlenecks in every sub-layer)",
        20.0,
        (1e-5, 1e-2),
        "Houlsby et al. 2019, arXiv:1902.00751",
        "houlsby2019adapters",
        is_adapter=True,
        is_base=False,
    )

    kind: Literal["houlsby"] = "houlsby"

    norms: bool = True
    """Whether the scales and shifts of the blocks' norms move, too, as in the paper."""


class Pfeiffer(Bottlenecks):
    """One bottleneck at the end of every block; these and the head move: half as many weights as `houlsby` (Pfeiffer et
    al. 2021, arXiv:2005.00247). Its usual rate was found as that of `houlsby` (accuracy 0.27, 0.38, 0.55)."""

    facts = Facts(
        "Pfeiffer adapters (a bottleneck at the end of every block)",
        20.0,
        (1e-5, 1e-2),
        "Pfeiffer et al. 2021, arXiv:2005.00247",
        "pfeiffer2021adapterfusion",
        is_adapter=True,
        is_base=False,
    )

    kind: Literal["pfeiffer"] = "pfeiffer"

    activation: Literal["relu", "gelu", "swish"] = "relu"
    """What bends the numbers at the narrow place."""


class AutoMethod(MethodSettings):
    """Full, last layers, head or LoRA, by the number of rows, the size of the model and the memory; said with its
    reason, and written into the run folder."""

    kind: Literal["auto"] = "auto"


Method = Annotated[
    Full
    | Head
    | LastLayers
    | GradualUnfreezing
    | BitFit
    | Lora
    | Dora
    | Qlora
    | Ia3
    | Houlsby
    | Pfeiffer
    | Prefix
    | Prompt
    | AutoMethod,
    Field(discriminator="kind"),
    KindOrMapping,
]
KINDS: dict[str, type[MethodSettings]] = {
    "full": Full,
    "head": Head,
    "last-layers": LastLayers,
    "gradual-unfreezing": GradualUnfreezing,
    "bitfit": BitFit,
    "lora": Lora,
    "houlsby": Houlsby,
    "pfeiffer": Pfeiffer,
    "dora": Dora,
    "qlora": Qlora,
    "ia3": Ia3,
    "prefix": Prefix,
    "prompt": Prompt,
    "auto": AutoMethod,
}
