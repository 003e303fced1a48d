"""Tiny random models with a real tokenizer, made in a moment, for laws that need no knowledge."""

from __future__ import annotations

import hashlib
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

_TEXT = """
card money bank lost stolen transfer refund arrived waiting fee rate cash top up pin app phone account pay payment wrong
charged twice new old my the a is not has why how when where did i it to for with from please help
"""
WORDS = _TEXT.split()


def make_tokenizer(folder: Path) -> None:
    """A word-level BERT tokenizer over a few words and single letters."""
    from transformers import BertTokenizerFast

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(dict.fromkeys(pieces)) + "\n")
    BertTokenizerFast(str(vocabulary), model_max_length=64).save_pretrained(folder)


def make_model(folder: Path, kind: str = "bert", dropout: float = 0.1, layers: int = 3, seed: int = 0) -> Path:
    """A random model of a family (`bert`), or one with a head over all tokens (`bert+masked`, `llama+causal`), with
    hidden size 32, saved as transformers saves it. Returns the folder."""
    import torch
    import transformers as t

    folder.mkdir(parents=True, exist_ok=True)
    if kind in ("vit", "efficientnet-lite"):
        return make_image_model(folder, kind, dropout, layers, seed)
    make_tokenizer(folder)
    vocab = len((folder / "vocab.txt").read_text().split())
    wide: dict[str, Any] = {"vocab_size": vocab, "hidden_size": 32, "intermediate_size": 64}
    drop = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    encoder = {**wide, **drop, "num_hidden_layers": layers, "num_attention_heads": 4, "max_position_embeddings": 66}
    configs = {
        "bert": lambda: t.BertConfig(**encoder),
        "roberta": lambda: t.RobertaConfig(**encoder, pad_token_id=0),
        "electra": lambda: t.ElectraConfig(**encoder, embedding_size=32),
        "distilbert": lambda: t.DistilBertConfig(
            vocab_size=vocab,
            dim=32,
            hidden_dim=64,
            n_layers=layers,
            n_heads=4,
            dropout=dropout,
            seq_classif_dropout=dropout,
            attention_dropout=dropout,
            max_position_embeddings=66,
        ),
        "llama": lambda: t.LlamaConfig(
            **wide,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=66,
            pad_token_id=0,
            attention_dropout=dropout,
        ),
    }
    torch.manual_seed(seed)
    family, _, head = kind.partition("+")
    auto = {"": t.AutoModel, "masked": t.AutoModelForMaskedLM, "causal": t.AutoModelForCausalLM}[head]
    model = auto.from_config(configs[family]())
    model.save_pretrained(folder)
    return folder


def make_writer(folder: Path, kind: str = "bart", dropout: float = 0.1, layers: int = 2, seed: int = 0) -> Path:
    """A random model that writes, with an output layer of its own (`-tied`: the word embedding is its output layer)."""
    import torch
    import transformers as t

    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(folder)
    words = (folder / "vocab.txt").read_text().split()
    family, _, tied = kind.partition("-")
    shared: dict[str, Any] = {"vocab_size": len(words), "tie_word_embeddings": bool(tied), "pad_token_id": 0}
    ends = {"bos_token_id": words.index("[CLS]"), "eos_token_id": words.index("[SEP]")}
    both = {"d_model": 32, "encoder_layers": layers, "decoder_layers": layers, "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "dropout": dropout,
            "max_position_embeddings": 66, "forced_eos_token_id": None, "init_std": 0.2}  # fmt: skip
    configs = {
        "t5": lambda: t.T5Config(
            **shared, d_model=32, d_kv=8, d_ff=64, num_layers=layers, num_heads=4, dropout_rate=dropout,
            decoder_start_token_id=0, eos_token_id=ends["eos_token_id"],
        ),
        "bart": lambda: t.BartConfig(**shared, **both, **ends, decoder_start_token_id=ends["eos_token_id"]),
        "marian": lambda: t.MarianConfig(**shared, **both, eos_token_id=ends["eos_token_id"], decoder_start_token_id=0),
        "llama": lambda: t.LlamaConfig(
            **shared, **ends, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=66, attention_dropout=dropout, initializer_range=0.2,
        ),
        "gpt2": lambda: t.GPT2Config(
            **shared, **ends, n_embd=32, n_layer=layers, n_head=4, n_positions=66, resid_pdrop=dropout,
            embd_pdrop=dropout, attn_pdrop=dropout, initializer_range=0.2,
        ),
    }  # fmt: skip
    auto = t.AutoModelForCausalLM if family in ("llama", "gpt2") else t.AutoModelForSeq2SeqLM
    torch.manual_seed(seed)
    model = auto.from_config(configs[family]())
    model.save_pretrained(folder)
    return folder


def make_image_model(folder: Path, kind: str, dropout: float, layers: int, seed: int) -> Path:
    """A random model for images of 32 x 32 pixels, with its preparation."""
    import torch
    import transformers as t

    from tunesmith.models.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel

    size = {"height": 32, "width": 32}
    torch.manual_seed(seed)
    if kind == "vit":
        wide: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "image_size": 32, "patch_size": 8}
        drop = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        config = t.ViTConfig(**wide, **drop, num_hidden_layers=layers, num_attention_heads=4)
        model: Any = t.ViTModel(config, add_pooling_layer=False)
    else:
        stages = [[3, 1, 1, 8, 1], [3, 2, 4, 16, layers - 1]]
        model = EfficientNetLiteModel(
            EfficientNetLiteConfig(image_size=32, stem_channels=8, stages=stages, hidden_size=32, dropout_rate=dropout)
        )
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", "size": size, "do_convert_rgb": True})
    )
    return folder


LABELS = ("card", "cash", "transfer")


def make_rows(number: int, seed: int = 0, labels: tuple[str, ...] = LABELS) -> list[dict[str, str]]:
    """Rows whose label stands in the text, among noise words: learnable, of very unequal length."""
    import random

    source = random.Random(seed)
    rows = []
    for index in range(number):
        label = labels[index % len(labels)]
        words = [source.choice(WORDS) for _ in range(source.choice((2, 3, 5, 8, 20)))]
        words = [word for word in words if word not in labels] + [str(index)]
        words.insert(source.randrange(len(words) + 1), label)
        rows.append({"text": " ".join(words), "label": label})
    return rows


_ENTITIES = ((("bank",), "PLACE"), (("new", "card"), "THING"), (("app",), "PLACE"), (("old", "card"), "THING"))


def make_entity_rows(number: int, seed: int = 0) -> list[dict[str, list[str]]]:
    """Rows of words and BIO tags: `new card` and `old card` are THING, `bank` and `app` PLACE, by the word alone."""
    import random

    source = random.Random(seed)
    rows = []
    for index in range(number):
        tokens = [source.choice(WORDS) for _ in range(source.choice((2, 3, 5, 8, 20)))]
        tokens = [word for word in tokens if word not in ("card", "bank", "app", "new", "old")] + [f"x{index}"]
        tags = ["O"] * len(tokens)
        for found, kind in (
            (("bank",), "PLACE"),
            (("new", "card"), "THING"),
            (("app",), "PLACE"),
            (("old", "card"), "THING"),
        ):
            if source.random() < 0.6:
                place = source.choice([i for i in range(len(tokens) + 1) if i == len(tokens) or tags[i][0] != "I"])
                tokens[place:place] = found
                tags[place:place] = [f"{'I' if i else 'B'}-{kind}" for i in range(len(found))]
        rows.append({"tokens": tokens, "tags": tags})
    return rows


def make_questions(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Questions for the two words behind the one that is asked for; a third of them has no answer in its text."""
    import random

    source = random.Random(seed)
    rows = []
    for index in range(number):
        asked = source.choice(LABELS)
        words = [source.choice(WORDS) for _ in range(source.choice((4, 8, 15)))]
        words = [word for word in words if word not in LABELS]
        texts: list[str] = []
        if index % 3:
            answer = source.sample(["bank", "app", "fee", "pin"], 2)
            place = source.randrange(len(words) + 1)
            words[place:place] = [asked, *answer]
            texts = [" ".join(answer)]
        context = " ".join([*words, str(index)])
        starts = [context.index(f"{asked} {text}") + len(asked) + 1 for text in texts]
        rows.append(
            {"question": f"where is the {asked}", "context": context, "answers": {"texts": texts, "starts": starts}}
        )
    return rows


def make_flat_questions(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """The same questions as they stand in files, in SQuAD's names."""
    return [
        {**row, "answers": {"text": row["answers"]["texts"], "answer_start": row["answers"]["starts"]}}
        for row in make_questions(number, seed)
    ]


def make_triplets(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Anchors, texts with the same two words among noise, and texts with other words; `score` says how alike
    `sentence1` and `sentence2` are: the first two of a row, or the outer two."""
    import random

    source, rows = random.Random(seed), []
    for index in range(number):
        mine = [WORDS[index % len(WORDS)], WORDS[(index + 7 * (index // len(WORDS) + 1)) % len(WORDS)]]
        anchor, positive, negative = (
            [*source.choices(("new", "old", "my", "the"), k=source.choice((1, 2, 9))), *words]
            for words in (mine, mine, source.sample([word for word in WORDS if word not in mine], 2))
        )
        for words in (anchor, positive, negative):
            source.shuffle(words)
        row = {name: " ".join(words) for name, words in
               zip(("anchor", "positive", "negative"), (anchor, positive, negative), strict=True)}  # fmt: skip
        other = row["negative" if index % 2 else "positive"]
        rows.append({**row, "sentence1": row["anchor"], "sentence2": other, "score": 5.0 * (1 - index % 2)})
    return rows


def make_sentences(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Texts in which every second word follows from the one before it."""
    import random

    source, known = random.Random(seed), WORDS[:3]
    follows = dict(zip(known, WORDS[3:6], strict=True))
    rows = []
    for _ in range(number):
        words = source.choices(known, k=source.choice((2, 4, 6, 12)))
        rows.append({"text": " ".join(f"{word} {follows[word]}" for word in words)})
    return rows


def make_reversals(number: int, seed: int = 0, words: int = 6) -> list[dict[str, Any]]:
    """Texts of a few different words, and the same words backwards."""
    import random

    source = random.Random(seed)
    rows = []
    for _ in range(number):
        text = source.sample(WORDS[:12], source.randint(3, words))
        rows.append({"source": " ".join(text), "target": [" ".join(reversed(text))]})
    return rows


@cache
def _picture_folder() -> tempfile.TemporaryDirectory[str]:
    """A place for images of rows that no test has a folder for; it goes with the process."""
    return tempfile.TemporaryDirectory()


def make_pictures(folder: Path, number: int, seed: int = 0, labels: tuple[str, ...] = LABELS) -> list[Path]:
    """Noise with a patch in it whose colour is the class, in one folder for each class; of unequal shapes."""
    import numpy as np
    from PIL import Image

    source = np.random.default_rng(seed)
    paths = []
    for index in range(number):
        pixels = source.integers(60, 120, (int(source.integers(30, 60)), int(source.integers(30, 60)), 3), np.uint8)
        top, left = source.integers(0, 10, 2)
        pixels[top : top + 20, left : left + 20, index % 3] = 250
        path = folder / labels[index % len(labels)] / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        paths.append(path)
    return paths


def make_picture_rows(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of images as they are read: each was looked at."""
    from tunesmith.data.images import Picture

    paths = make_pictures(Path(_picture_folder().name) / str(seed), number, seed)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return [
        {"image": Picture(str(path), digest), "label": path.parent.name}
        for path, digest in zip(paths, digests, strict=True)
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
