"""Texts that are compared: vectors, losses, ranks, files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional
from workbench import TASKS, Bench, largest_difference, set_up, train

from tunesmith import tasks
from tunesmith.data.rows import Row
from tunesmith.errors import DataError, ModelError
from tunesmith.evaluation import as_predictions, predict
from tunesmith.folder import write_json
from tunesmith.models.encoders import DENSE_FOLDER, POOLING_FOLDER, load_encoder
from tunesmith.models.references import find_base
from tunesmith.recipe import Full, Lora, SentenceSimilarity, Settings
from tunesmith.tasks.contract import Answer, Limit

Bases = Callable[..., Path]
KIND = "sentence-similarity"


def bench_of(folder: Path, method: Settings, budget: int = 2048, num_rows: int = 20, **settings: Any) -> Bench:
    """As `set_up`, with these settings of the task."""
    kept = TASKS[KIND]
    TASKS[KIND] = (SentenceSimilarity(**settings), kept[1])
    try:
        return set_up(folder, method, num_rows, budget=budget, kind=KIND)
    finally:
        TASKS[KIND] = kept


def vectors_of(bench: Bench) -> torch.Tensor:
    """(R, K, D) by the plain body, one text at a time: the mean over its tokens, then the projection."""
    model, tokenizer = bench.loaded.model.eval(), bench.loaded.processor
    found = []
    for row in bench.rows:
        for name in bench.task.texts:
            inputs = tokenizer(row[name], return_tensors="pt")
            hidden = model.body(**inputs).last_hidden_state
            found.append(model.projection(hidden.mean(dim=1))[0])
    return functional.normalize(torch.stack(found), dim=-1).view(len(bench.rows), len(bench.task.texts), -1)


@pytest.mark.parametrize("target", ["score", "positive", "triplet"])
@pytest.mark.parametrize("loss", ["contrastive", "triplet"])
def test_the_losses_are_those_of_their_papers(bases: Bases, target: str, loss: str) -> None:
    """Written out row by row: squared error of the cosine; softmax over all texts of the batch; hinge."""
    if loss == "triplet" and target != "triplet":
        pytest.skip("no such loss for these rows")
    bench = bench_of(bases("bert", dropout=0.0), Full(), target=target, loss=loss)
    with torch.no_grad():
        vectors = vectors_of(bench)
        wanted = []
        for row, mine in enumerate(vectors):
            if target == "score":
                wanted.append((float(mine[0] @ mine[1]) - bench.rows[row]["score"] / 5.0) ** 2)
            elif loss == "triplet":
                wanted.append(max(0.0, float(mine[0] @ mine[2] - mine[0] @ mine[1]) + 0.3))
            else:
                others = [vectors[other, slot] for slot in range(1, len(mine)) for other in range(len(vectors))]
                logits = torch.stack([mine[0] @ other for other in others]) / 0.05
                wanted.append(float(torch.logsumexp(logits, 0) - logits[row]))
        ours = bench.task.loss(bench.loaded, bench.batch())
    assert ours.count == len(bench.rows)
    assert float(ours.total) == pytest.approx(sum(wanted), rel=1e-10)
    outputs = predict(bench.loaded, bench.task, bench.examples, bench.devices)
    assert bench.task.mean_loss(outputs, bench.examples) == pytest.approx(sum(wanted) / len(wanted), rel=1e-5)


@pytest.mark.parametrize("method", [Full(), Lora(rank=4)], ids=["full", "lora"])
@pytest.mark.parametrize("target", ["score", "positive", "triplet"])
def test_a_batch_in_pieces_is_the_whole_batch(bases: Bases, method: Settings, target: str) -> None:
    """Also where every text of the batch is a negative of every other: the pieces are computed again, not cut apart."""

    def trained(budget: int) -> tuple[Bench, list[Any]]:
        bench = bench_of(bases("bert", dropout=0.0), method, budget, target=target)
        return bench, train(bench, 3, 8, 2e-3)

    whole, steps = trained(10**9)
    for budget in (1, 60):
        cut, cut_steps = trained(budget)
        assert largest_difference(whole.weights(), cut.weights()) <= 1e-9
        assert [step.loss for step in cut_steps] == pytest.approx([step.loss for step in steps], abs=1e-11)


def test_pieces_hold_the_inner_values_of_one_piece_only(bases: Bases) -> None:
    """What autograd keeps for the way back does not grow with the batch but by its vectors."""

    def kept_bytes(budget: int) -> int:
        bench = bench_of(bases("bert"), Full(), budget, num_rows=32, target="positive")
        total = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.numel() * tensor.element_size()
            return tensor

        bench.loaded.model.train()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            bench.task.loss(bench.loaded, bench.batch())
        return total

    assert kept_bytes(64) < kept_bytes(10**9) / 10


def test_dropout_is_the_same_when_a_piece_is_computed_again(bases: Bases) -> None:
    """Else the gradient would belong to another loss: it is held against the loss's own slope."""
    bench = bench_of(bases("bert", dropout=0.3), Full(), 64, target="positive")
    model, batch = bench.loaded.model.train(), bench.batch()
    weight = model.projection.weight  # type: ignore[union-attr]

    def loss() -> torch.Tensor:
        torch.manual_seed(5)
        return bench.task.loss(bench.loaded, batch).total

    gradient = torch.autograd.grad(loss(), model.body.encoder.layer[0].output.dense.weight)[0]  # type: ignore
    inner = model.body.encoder.layer[0].output.dense.weight  # type: ignore[union-attr]
    step = 1e-6 * functional.normalize(gradient, dim=None)
    with torch.no_grad():
        inner += step
        after = loss()
        inner -= 2 * step
        before = loss()
    assert float((after - before) / 2e-6) == pytest.approx(float(gradient.norm()), rel=1e-4)
    assert weight.requires_grad


def test_a_text_that_two_rows_share_is_no_negative(bases: Bases) -> None:
    """Rows with the same anchor, or the same positive, do not push each other away."""
    bench = bench_of(bases("bert", dropout=0.0), Full(), target="positive")
    values = [{"anchor": "card", "positive": "lost"}, {"anchor": "card", "positive": "stolen"}]
    rows = [Row(one, "rows", number) for number, one in enumerate(values)]

    def loss_of(*mine: Row) -> float:
        batch = bench.task.collate(bench.task.encode(mine, bench.loaded.processor, Limit(64)), bench.loaded.processor)
        with torch.no_grad():
            return float(bench.task.loss(bench.loaded, batch).total)

    assert loss_of(*rows) == pytest.approx(0.0, abs=1e-12)
    other = Row({"anchor": "bank", "positive": "lost"}, "rows", 3)
    assert loss_of(rows[0], other) == pytest.approx(0.0, abs=1e-12)
    assert loss_of(rows[0], Row({"anchor": "bank", "positive": "fee"}, "rows", 3)) > 0.01


def plain_rank(vectors: np.ndarray, rows: list[dict[str, str]], row: int) -> float:
    """By sorting, with every distinct text once and other positives of the same anchor left out."""
    texts: dict[str, np.ndarray] = {}
    for index, one in enumerate(rows):
        texts[one["positive"]] = vectors[index, 1]
        if "negative" in one:
            texts[one["negative"]] = vectors[index, 2]
    right = {one["positive"] for one in rows if one["anchor"] == rows[row]["anchor"]}
    mine = float(vectors[row, 0] @ texts[rows[row]["positive"]])
    others = [float(vectors[row, 0] @ vector) for text, vector in texts.items() if text not in right]
    return 1 + sum(other > mine for other in others) + sum(other == mine for other in others) / 2


@pytest.mark.parametrize("target", ["positive", "triplet"])
def test_ranks_are_those_of_a_search(target: str) -> None:
    """On 200 random searches with repeated texts; recall, reciprocal rank, nDCG by definition."""
    task, source = tasks.build(SentenceSimilarity(target=target)), np.random.default_rng(7)
    for _ in range(200):
        many = int(source.integers(1, 30))
        known = {
            f"t{i}": functional.normalize(torch.from_numpy(source.normal(size=4)), dim=0).numpy() for i in range(20)
        }
        texts = [f"t{i}" for i in source.integers(0, 20, size=3 * many)]
        rows = [
            {"anchor": f"q{source.integers(0, 12)}", "positive": texts[3 * i],
             **({"negative": texts[3 * i + 1]} if target == "triplet" else {})}
            for i in range(many)
        ]  # fmt: skip
        queries = {
            f"q{i}": functional.normalize(torch.from_numpy(source.normal(size=4)), dim=0).numpy() for i in range(12)
        }
        vectors = np.stack(
            [np.stack([queries[row["anchor"]], *(known[row[name]] for name in task.texts[1:])]) for row in rows]
        )
        given = [Row(dict(row), "rows", number) for number, row in enumerate(rows)]
        answers = task.answers(list(vectors), given, {})
        wanted = [plain_rank(vectors, rows, index) for index in range(many)]
        assert [answer.value["rank"] for answer in answers] == pytest.approx(wanted)
        measured = task.measures(as_predictions([task.gold(row) for row in given], answers))
        assert measured["recall_at_1"]() == pytest.approx(np.mean([rank <= 1 for rank in wanted]))
        assert measured["mrr_at_10"]() == pytest.approx(np.mean([1 / rank if rank <= 10 else 0 for rank in wanted]))
        gains = [1 / math.log2(1 + rank) if rank <= 10 else 0 for rank in wanted]
        assert measured["ndcg_at_10"]() == pytest.approx(np.mean(gains))


@pytest.mark.parametrize("cases", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_scores_of_ranks_equal_scikit_learn(cases: int) -> None:
    """On random searches without repeated texts; of up to ten texts the mean over all ranks is that over ten."""
    from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

    task, source = tasks.build(SentenceSimilarity(target="positive")), np.random.default_rng(8)
    for _ in range(cases):
        many = int(source.integers(2, 25))
        vectors = functional.normalize(torch.from_numpy(source.normal(size=(many, 2, 4))), dim=-1).numpy()
        rows = [Row({"anchor": f"a{i}", "positive": f"p{i}"}, "rows", i) for i in range(many)]
        answers = task.answers(list(vectors), rows, {})
        mine = task.measures(as_predictions([task.gold(row) for row in rows], answers))
        cosines, right = vectors[:, 0] @ vectors[:, 1].T, np.eye(many)
        assert mine["ndcg_at_10"]() == pytest.approx(ndcg_score(right, cosines, k=10), abs=1e-9)
        assert mine["recall_at_1"]() == pytest.approx(np.mean(cosines.argmax(axis=1) == np.arange(many)))
        if many <= 10:
            assert mine["mrr_at_10"]() == pytest.approx(label_ranking_average_precision_score(right, cosines), abs=1e-9)


def test_a_model_to_which_all_is_alike_finds_nothing() -> None:
    task = tasks.build(SentenceSimilarity(target="positive"))
    rows = [Row({"anchor": f"a{i}", "positive": f"p{i}"}, "rows", i) for i in range(30)]
    answers = task.answers([np.ones((2, 4)) / 2] * 30, rows, {})
    assert {answer.value["rank"] for answer in answers} == {15.5}


@pytest.mark.parametrize("target", ["score", "positive", "triplet"])
def test_gold_answers_score_one(target: str) -> None:
    task = tasks.build(SentenceSimilarity(target=target))
    golds = [0.0, 2.5, 5.0] if target == "score" else [task.gold(Row({}, "rows", 1))] * 3
    measured = task.measures(as_predictions(golds, [Answer(gold) for gold in golds]))
    wanted = {name: 0.0 if name == "rmse" else pytest.approx(1.0) for name in measured}
    assert {name: measure() for name, measure in measured.items()} == wanted


def test_scores_keep_their_scale_and_must_differ() -> None:
    """The lowest training score is a cosine of 0, the highest one of 1; answers are on the scale of the scores."""
    task = tasks.build(SentenceSimilarity(target="score"))
    rows = [Row({"sentence1": "a", "sentence2": "b", "score": score}, "rows", 1) for score in (1.0, 5.0)]
    task.learn(rows)
    alike, apart = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    answers = task.answers([alike, apart], rows, {})
    assert [answer.value for answer in answers] == [5.0, 1.0]
    assert task.shown(answers[0], rows[0]) == {"similarity": 1.0, "score": 5.0}
    with pytest.raises(DataError, match="all training rows have the same score"):
        tasks.build(SentenceSimilarity(target="score")).learn(rows[:1])


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "llama"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "last"])
def test_a_new_projection_changes_nothing_and_padding_has_no_part(bases: Bases, family: str, pooling: str) -> None:
    """The vectors of a padded batch are those of each text alone, pooled by hand from the plain body."""
    import transformers

    folder = bases(family, dropout=0.0)
    loaded = load_encoder(find_base(str(folder)), pooling, 0, torch.float64)  # type: ignore[arg-type]
    plain = transformers.AutoModel.from_pretrained(folder, dtype=torch.float64).eval()
    texts = ["card", "my new card is lost why", "bank fee"]
    with torch.no_grad():
        batch = loaded.processor(texts, padding=True, return_tensors="pt")
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        ours = loaded.model.eval()(**inputs)
        for text, vector in zip(texts, ours, strict=True):
            ids = loaded.processor(text, return_tensors="pt")["input_ids"]
            hidden = plain(input_ids=ids).last_hidden_state[0]
            wanted = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.amax(0), "last": hidden[-1]}[pooling]
            assert torch.allclose(vector, wanted, atol=1e-10)


def test_the_base_says_how_it_pools(bases: Bases, tmp_path: Path) -> None:
    """1_Pooling in its old and its new form; several ways at once, unknown modules, an activation: refused by name."""
    import shutil

    folder = tmp_path / "base"
    shutil.copytree(bases("bert"), folder)
    (folder / POOLING_FOLDER).mkdir()
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"},
               {"path": POOLING_FOLDER, "type": "sentence_transformers.models.Pooling"}]  # fmt: skip
    write_json(folder / "modules.json", modules)

    def opened() -> str:
        return load_encoder(find_base(str(folder)), None, 0, torch.float32).model.pooling  # type: ignore

    for config, wanted in (
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": ["max"]}, "max"),
    ):
        write_json(folder / POOLING_FOLDER / "config.json", config)
        assert opened() == wanted
    write_json(
        folder / POOLING_FOLDER / "config.json", {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}
    )
    with pytest.raises(ModelError, match="pools by cls, max"):
        opened()
    write_json(folder / "modules.json", [*modules, {"path": "2_LSTM", "type": "sentence_transformers.models.LSTM"}])
    with pytest.raises(ModelError, match="LSTM"):
        opened()
    dense = {"path": DENSE_FOLDER, "type": "sentence_transformers.models.Dense"}
    write_json(folder / "modules.json", [*modules, dense])
    write_json(folder / POOLING_FOLDER / "config.json", {"pooling_mode": "mean"})
    (folder / DENSE_FOLDER).mkdir()
    save_file(
        {"linear.weight": torch.eye(32), "linear.bias": torch.ones(32)}, folder / DENSE_FOLDER / "model.safetensors"
    )
    write_json(folder / DENSE_FOLDER / "config.json", {"activation_function": "torch.nn.modules.activation.Tanh"})
    with pytest.raises(ModelError, match="Tanh"):
        opened()
    write_json(folder / DENSE_FOLDER / "config.json", {"activation_function": "torch.nn.modules.linear.Identity"})
    loaded = load_encoder(find_base(str(folder)), None, 0, torch.float32)
    assert loaded.model.projection.bias.tolist() == [1.0] * 32  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("columns", "target"),
    [
        (("sentence1", "sentence2", "score"), "score"),
        (("anchor", "positive"), "positive"),
        (("query", "positive", "negative"), "triplet"),
        (("query", "passage", "score"), "positive"),
        (("premise", "hypothesis", "similarity"), "score"),
    ],
)
def test_the_target_follows_from_the_columns(columns: tuple[str, ...], target: str) -> None:
    assert SentenceSimilarity().settled(columns, {}).target == target


def test_settings_that_do_nothing_are_named() -> None:
    def idle(**settings: Any) -> list[str]:
        return [fault.where for fault in SentenceSimilarity(**settings).idle()]

    assert idle(target="score", temperature=0.1, margin=0.5) == ["task.temperature", "task.margin"]
    assert idle(target="positive", loss="triplet") == ["task.loss"]
    assert idle(target="triplet", loss="triplet", margin=0.5) == []
    assert idle(target="triplet", temperature=0.1) == []


def test_a_texts_own_partner_is_no_wrong_answer_for_it() -> None:
    """Not as another row's positive, nor as another row's mined negative; nor is any partner of the same anchor."""
    from tunesmith.tasks.sentence_similarity import _no_negatives

    anchors, positives, negatives = [1, 1, 2], [10, 11, 12], [20, 10, 21]
    text_BK = torch.tensor([anchors, positives, negatives]).T
    hidden = _no_negatives(text_BK).tolist()
    assert hidden == [
        [False, True, False, False, True, False],
        [True, False, False, False, False, False],
        [False, False, False, False, False, False],
    ]
