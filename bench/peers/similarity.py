"""transformers.Trainer on sentences and how alike they are, as a bi-encoder; prints one JSON object.

What sentence-transformers' CosineSimilarityLoss does: tokens pooled by their mean, the cosine of both sentences held
against the score as a share of the highest (that of STS-B is 5) by the squared error.
"""

import argparse

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from bench.peers import trainer

HIGHEST = 5.0


class BiEncoder(nn.Module):
    """Two sentences through one body, and the cosine of their means."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.body = AutoModel.from_pretrained(folder, add_pooling_layer=False)
        self.config = self.body.config

    def forward(self, first: dict, second: dict, labels: torch.Tensor | None = None) -> dict:
        cosine = functional.cosine_similarity(self.vectors(first), self.vectors(second))
        if labels is None:
            return {"logits": cosine}
        return {"loss": functional.mse_loss(cosine, labels), "logits": cosine}

    def vectors(self, texts: dict) -> torch.Tensor:
        mask = texts["attention_mask"][:, :, None].float()
        return (self.body(**texts).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1)


def main() -> None:
    trainer.answer(trainer.parse(targets=["score"]), train)


def train(options: argparse.Namespace, output: str) -> dict:
    """Load the base, tokenise, train, and compare the test rows."""
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = BiEncoder(options.model)
    features = encode(trainer.read(options.train), tokenizer, options.max_length)

    def pad(rows: list[dict]) -> dict:
        labels = torch.tensor([row["labels"] for row in rows])
        return {**padded(rows, tokenizer), "labels": labels}

    found = trainer.fit(model, features, pad, tokenizer, options, output)
    return found | {"outputs": cosines(model, trainer.read(options.test), tokenizer, options.max_length)}


def encode(rows: list[dict], tokenizer, max_length: int) -> list[dict]:
    """Tokens of both sentences of all rows, and the cosine to learn."""
    first, second = (
        tokenizer([row[name] for row in rows], truncation=True, max_length=max_length)
        for name in ("sentence1", "sentence2")
    )
    return [
        {
            "first": {name: first[name][number] for name in first},
            "second": {name: second[name][number] for name in second},
            "labels": float(row["score"]) / HIGHEST,
        }
        for number, row in enumerate(rows)
    ]


def padded(rows: list[dict], tokenizer) -> dict:
    """Each side of the pairs padded to its longest sentence."""
    return {side: dict(tokenizer.pad([row[side] for row in rows], return_tensors="pt")) for side in ("first", "second")}


@torch.inference_mode()
def cosines(model: BiEncoder, rows: list[dict], tokenizer, max_length: int) -> list[list[float]]:
    """The cosine of each pair, in file order."""
    model.eval()
    features = encode(rows, tokenizer, max_length)
    found = []
    for start in range(0, len(rows), 64):
        found += model(**padded(features[start : start + 64], tokenizer))["logits"].tolist()
    return [[cosine] for cosine in found]


if __name__ == "__main__":
    main()
