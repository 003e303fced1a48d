"""Images: looked at anew each epoch by draws that follow from seed, epoch and row alone, prepared for judging as their
model's makers prepare them, and a model of our own that opens in plain transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_law_resume import PowerCut, assert_same, contents
from workbench import EVERY_METHOD, Bench, largest_difference, logits_of, recipe_of, run_tiny, set_up, train

import tiny
from tunesmith import tasks
from tunesmith.data.rows import Row
from tunesmith.fitting import Voice
from tunesmith.folder import RunFolder
from tunesmith.models.importers import LITE0_PACKAGE
from tunesmith.models.loaded import as_base
from tunesmith.models.references import find_base
from tunesmith.recipe import Full, ImageClassification, Settings
from tunesmith.run import resume, run
from tunesmith.tasks.contract import Draw, Limit
from tunesmith.tasks.image_classification import size_of
from tunesmith.tasks.views import part_of

KIND = "image-classification"
FAMILIES = ("vit", "efficientnet-lite")
Bases = Callable[..., Path]


def bench_of(bases: Bases, family: str = "vit", method: Settings | None = None, **task: Any) -> Bench:
    """A bench whose task has these settings."""
    bench = set_up(bases(family, dropout=0.0), method or Full(), num_rows=12, kind=KIND)
    learned = bench.task.learned()
    bench.task = tasks.build(ImageClassification(target="label", **task))
    bench.task.recall(learned)
    return bench


# draws


def test_a_look_at_a_row_follows_from_seed_epoch_and_row(bases: Bases) -> None:
    bench = bench_of(bases)
    example = bench.examples[0]

    def pixels(*draw: int) -> torch.Tensor:
        return bench.task.collate([bench.task.drawn(example, Draw(*draw))], bench.loaded.processor)["pixel_values"]

    assert torch.equal(pixels(1, 2, 3), pixels(1, 2, 3))
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert not torch.equal(pixels(1, 2, 3), pixels(*other))


def test_each_change_has_numbers_of_its_own(bases: Bases) -> None:
    """Switching the mirror on changes which way an image looks, not which part of it is seen."""
    bench, mirrored = bench_of(bases, flip=0.0), bench_of(bases, flip=1.0)
    drawn = bench.task.drawn(bench.examples[0], Draw(0, 0, 0))
    one, other = (b.task.collate([drawn], b.loaded.processor)["pixel_values"] for b in (bench, mirrored))
    # brightness and contrast go by means over the image: mirrored they differ by rounding alone
    assert float((one.flip(-1) - other).abs().max()) < 0.03 and not torch.equal(one, other)


@pytest.mark.parametrize("least", [0.1, 0.5, 0.95])
def test_a_part_lies_inside_and_holds_what_was_drawn(least: float) -> None:
    source = np.random.default_rng(0)
    shares = []
    for _ in range(500):
        left, top, right, bottom = part_of((300, 200), least, source)
        assert 0 <= left < right <= 300 + 1e-9 and 0 <= top < bottom <= 200 + 1e-9
        shares.append((right - left) * (bottom - top) / 60_000)
    assert least - 1e-9 <= min(shares) < least + 0.05 and 0.95 < max(shares) <= 1 + 1e-9


def test_unchanged_training_images_are_those_of_judging(bases: Bases) -> None:
    bench = bench_of(bases, crop=1.0, flip=0.0, jitter=0.0)
    drawn = [bench.task.drawn(example, Draw(0, 0, row)) for row, example in enumerate(bench.examples)]
    batch = bench.task.collate(drawn, bench.loaded.processor)
    assert torch.equal(batch["pixel_values"], bench.batch()["pixel_values"])


def test_judging_prepares_images_as_the_models_makers_do(bases: Bases) -> None:
    """No draw touches an image that is judged, whatever the settings of training: it is the processor's own."""
    from PIL import Image

    bench = bench_of(bases, mix="mixup")
    images = [Image.open(row["image"].path).convert("RGB") for row in bench.rows]
    theirs = bench.loaded.processor(images=images, return_tensors="pt")["pixel_values"]
    assert torch.equal(bench.batch()["pixel_values"], theirs) and bench.task.units(bench.examples) is None


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixed_pairs_hold_what_both_images_held(bases: Bases, mix: str) -> None:
    """What one of a pair gives up the other has; shares say how much; the loss is that of both labels by them."""
    plain, bench = bench_of(bases), bench_of(bases, mix=mix, mix_alpha=1.0)
    drawn = [bench.task.drawn(example, Draw(0, 0, row)) for row, example in enumerate(bench.examples[:5])]
    before = plain.task.collate(drawn, plain.loaded.processor)["pixel_values"]
    batch = bench.task.collate(drawn, bench.loaded.processor)
    after, shares = batch["pixel_values"], batch["share"]
    for first in (0, 2):
        pair = slice(first, first + 2)
        assert torch.allclose(before[pair].sum(0), after[pair].sum(0), atol=1e-5)
        assert not torch.equal(before[pair], after[pair]) and 0 < float(shares[first]) < 1
    assert batch["partner"].tolist() == [1, 0, 3, 2, 4] and torch.equal(before[4], after[4])
    assert float(shares[4]) == 1.0 and float(shares[0]) == float(shares[1])
    if mix == "cutmix":
        own = (after[0] == before[0]).all(dim=0).double().mean()
        assert float(own) == pytest.approx(float(shares[0]), abs=1e-3)
    logits = logits_of(bench.loaded.model, {"pixel_values": after.double()})
    logs = logits.log_softmax(-1)
    target = batch["target"]
    own, others = (logs[torch.arange(5), labels] for labels in (target, target[batch["partner"]]))
    bench.loaded.model.eval()
    loss = bench.task.loss(bench.loaded, batch)
    wanted = -(shares * own + (1 - shares) * others).sum()
    assert float(loss.total.detach()) == pytest.approx(float(wanted), abs=1e-9) and loss.count == pytest.approx(5)


# how a batch is cut


@pytest.mark.parametrize("mix", ["off", "cutmix"])
@pytest.mark.parametrize("family", FAMILIES)
def test_how_a_batch_is_cut_changes_nothing(bases: Bases, family: str, mix: str) -> None:
    """Whole batches and pieces of one row (of one pair, where images are mixed) train the same weights; with batch
    norms too, since they keep to the base's statistics."""
    weights = []
    for budget in (10_000, 1):
        bench = bench_of(bases, family, mix=mix)
        bench.devices = replace(bench.devices, micro_batch_tokens=budget)
        before = bench.weights()
        train(bench, steps=4, batch_size=7)
        weights.append(bench.weights())
        assert largest_difference(before, weights[-1]) > 1e-3
    assert largest_difference(*weights) < 1e-9


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_base_comes_back_exactly_with_its_statistics(bases: Bases, method: str) -> None:
    bench = bench_of(bases, "efficientnet-lite", EVERY_METHOD[method])
    buffers = {name: buffer.clone() for name, buffer in bench.loaded.model.named_buffers()}
    train(bench, steps=3)
    batch = {"pixel_values": bench.batch()["pixel_values"].double()}
    plain = bench.task.load(bench.loaded.base, 0, torch.float64).model
    with as_base(bench.loaded) as model:
        assert torch.equal(logits_of(model, batch), logits_of(plain, batch))
    assert all(torch.equal(buffers[name], buffer) for name, buffer in bench.loaded.model.named_buffers())


# runs


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders: train (30 images) and test (12)."""
    folder = tmp_path_factory.mktemp("photos")
    tiny.make_pictures(folder / "train", 30)
    tiny.make_pictures(folder / "test", 12, seed=1)
    return folder


class Cutter(Voice):
    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, step: Any, total: int) -> None:
        if step.number == self.at:
            raise PowerCut


@pytest.mark.parametrize("family", FAMILIES)
def test_resume_equals_straight(bases: Bases, photos: Path, tmp_path: Path, family: str) -> None:
    course: dict[str, Any] = {
        "task": {"kind": KIND, "mix": "mixup"},
        "train": {"steps": 9, "batch_size": 7, "evaluate_every": 4, "checkpoint_every": 2, "refit": True},
    }
    base = bases(family)
    wanted = contents(run_tiny(base, photos / "train", tmp_path / "straight", **course).folder.path)
    folder = RunFolder(tmp_path / "cut")
    with pytest.raises(PowerCut):
        run(recipe_of(base, photos / "train", folder.path, **course), voice=Cutter(7))
    assert resume(folder.path).manifest["resumed_from"] == 6
    assert_same(contents(folder.path), wanted, "a power cut")


def test_another_image_in_an_old_place_is_another_run(bases: Bases, photos: Path, tmp_path: Path) -> None:
    """A run goes on with the very images it began with: paths alone say nothing."""
    from tunesmith.errors import CheckpointError

    rows = tmp_path / "rows.jsonl"
    paths = tiny.make_pictures(tmp_path / "own", 20)
    tiny.write_rows(rows, [{"image": str(path), "label": path.parent.name} for path in paths])
    folder = RunFolder(tmp_path / "cut")
    recipe = recipe_of(bases("vit"), rows, folder.path, task=KIND, train={"checkpoint_every": 2})
    with pytest.raises(PowerCut):
        run(recipe, voice=Cutter(5))
    paths[3].write_bytes(paths[4].read_bytes())
    with pytest.raises(CheckpointError, match=r"data\.train\.sha256 was"):
        resume(folder.path)


@pytest.mark.parametrize("method", ["full", "head", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_saved_folder_opens_in_plain_libraries(
    bases: Bases, photos: Path, tmp_path: Path, family: str, method: str
) -> None:
    """Equal logits by transformers' Auto classes (and PEFT) alone, once the class of our own is registered."""
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    base = bases(family)
    run = run_tiny(
        base, photos / "train", tmp_path / "run", method=EVERY_METHOD[method].model_dump(), task=KIND,
        train={"steps": 40, "learning_rate": 2e-2, "evaluate_every": 20}, data={"test": str(photos / "test")},
    )  # fmt: skip
    if method == "lora":
        from peft import PeftModel

        plain = AutoModelForImageClassification.from_pretrained(base, num_labels=3)
        plain = PeftModel.from_pretrained(plain, run.folder.model)
    else:
        plain = AutoModelForImageClassification.from_pretrained(run.folder.model)
        assert list(plain.config.id2label.values()) == list(tiny.LABELS)
    processor = AutoImageProcessor.from_pretrained(run.folder.model, backend="pil")
    paths = sorted((photos / "test").glob("*/*.png"))
    batch = processor(images=[Image.open(path).convert("RGB") for path in paths], return_tensors="pt")
    theirs = logits_of(plain, dict(batch))
    assert float((theirs - logits_of(run.loaded.model, dict(batch))).abs().max()) <= 1e-5
    answers = [answer["label"] for answer in run.predict([str(path) for path in paths])]
    assert answers == [tiny.LABELS[index] for index in theirs.argmax(dim=-1).tolist()]
    assert answers == [row["label"] for row in run.predict_file(photos / "test")]
    untrained = set_up(base, EVERY_METHOD[method], precision="fp32", kind=KIND).loaded.model
    assert float((theirs - logits_of(untrained, dict(batch))).abs().max()) > 1e-3


@pytest.mark.parametrize("target", ["labels", "score", "path"])
def test_other_targets(bases: Bases, tmp_path: Path, target: str) -> None:
    """Any number of labels, a number and a taxonomy are learned from images as from texts."""
    paths = tiny.make_pictures(tmp_path / "photos", 45)
    answers: dict[str, Callable[[str], Any]] = {
        "labels": lambda label: [label] if label != "cash" else ["card", "transfer"],
        "score": lambda label: float(tiny.LABELS.index(label)) + 0.5,
        "path": lambda label: f"{'paper' if label == 'cash' else 'plastic'}/{label}",
    }
    column = {"path": "label"}.get(target, target)
    rows = [
        {"image": str(path.relative_to(tmp_path)), column: answers[target](path.parent.name), "index": i}
        for i, path in enumerate(paths)
    ]
    run = run_tiny(
        bases("vit", dropout=0.0), tiny.write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "run",
        task={"kind": KIND, "target": target}, judge={"baselines": "auto"}, data={"validation": 0.3},
        train={"steps": 60, "learning_rate": 1e-2, "evaluate_every": 20},
    )  # fmt: skip
    primary = run.scores["primary"]
    assert primary == {"labels": "micro_f1", "score": "spearman", "path": "accuracy"}[target]
    assert run.scores["validation"][primary]["value"] > 0.8
    assert set(run.scores["baselines"]) == {"majority", "nearest-neighbours", "linear-probe"}
    assert run.scores["baselines"]["linear-probe"][primary]["value"] > 0.8


# models


def test_images_of_no_single_size_are_refused(bases: Bases, tmp_path: Path) -> None:
    """A preparation that keeps each image's shape would fail in the first batch; it is told before."""
    import shutil

    from tunesmith.errors import ModelError

    folder = tmp_path / "base"
    shutil.copytree(bases("vit"), folder)
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 32}, "do_center_crop": false}'
    )
    with pytest.raises(ModelError, match="different sizes"):
        set_up(folder, Full(), kind=KIND)


def test_a_preparation_of_another_model_is_refused(bases: Bases, tmp_path: Path) -> None:
    import shutil

    from tunesmith.errors import ModelError

    folder = tmp_path / "base"
    shutil.copytree(bases("vit"), folder)
    file = folder / "preprocessor_config.json"
    file.write_text(file.read_text().replace("32", "48"))
    with pytest.raises(ModelError, match="does not take images as its preparation makes them"):
        set_up(folder, Full(), kind=KIND)


def test_a_model_for_texts_is_refused(bases: Bases) -> None:
    from tunesmith.errors import ModelError

    with pytest.raises(ModelError, match="not a model for images"):
        set_up(bases("bert"), Full(), kind=KIND)


has_lite0 = pytest.mark.skipif(
    not any(found.metadata["Name"] == LITE0_PACKAGE for found in metadata.distributions()),
    reason=f"{LITE0_PACKAGE} is not installed",
)


@has_lite0
def test_the_imported_weights_are_the_packages_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Converted into the cache once, tensor by tensor equal; a second call finds them there."""
    from tunesmith.models import importers

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    base = find_base(f"package:{LITE0_PACKAGE}")
    assert base.folder.parents[1] == tmp_path / "tunesmith"
    assert {"model.safetensors", "config.json", "preprocessor_config.json"} == set(base.hashes())
    source = importers._file_of(LITE0_PACKAGE, ".pth")
    theirs = torch.load(source, weights_only=True)
    task = tasks.build(ImageClassification(target="label"))
    task.learn([Row({"label": label}, "rows", 1) for label in "ab"])
    loaded = task.load(base, 0, torch.float32)
    ours = loaded.model.state_dict()
    named = {importers._our_name(name): tensor for name, tensor in theirs.items()}
    assert all(torch.equal(ours[name], tensor) for name, tensor in named.items() if not name.startswith("classifier"))
    assert size_of(loaded.processor) == (224, 224)
    written = (base.folder / "model.safetensors").stat().st_mtime_ns
    assert (find_base(f"package:{LITE0_PACKAGE}").folder / "model.safetensors").stat().st_mtime_ns == written
    monkeypatch.setattr(importers, "LITE0_SHA256", "0" * 64)
    from tunesmith.errors import ModelError

    with pytest.raises(ModelError, match="SHA-256"):
        find_base(f"package:{LITE0_PACKAGE}")


@has_lite0
def test_its_logits_are_those_of_the_original_model_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, at sizes that pad evenly and at such that do not."""
    original = pytest.importorskip("efficientnet_lite_pytorch")
    from transformers import AutoModelForImageClassification

    from tunesmith.models.importers import _file_of, imported

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    theirs = original.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(_file_of(LITE0_PACKAGE, ".pth"), weights_only=True))
    ours = AutoModelForImageClassification.from_pretrained(imported(LITE0_PACKAGE)).eval()
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert float((ours(pixels).logits - theirs(pixels)).abs().max()) <= 1e-5


def test_examples_reach_other_processes_as_they_are(bases: Bases, tmp_path: Path) -> None:
    """What the first process hands over gives the others the very same pixels and targets."""
    from tunesmith.data.handover import hand_over, take_over

    bench = bench_of(bases)
    hand_over(bench.examples, tmp_path / "train.safetensors")
    taken = take_over(tmp_path / "train.safetensors")
    assert taken == bench.examples
    theirs = bench.task.collate(taken, bench.loaded.processor)
    assert all(torch.equal(theirs[name], tensor) for name, tensor in bench.batch().items())


def test_encoding_reads_no_image(bases: Bases) -> None:
    """An example is a path: what memory holds does not grow with the pixels."""
    bench = bench_of(bases)
    row = bench.rows[0]
    gone = Row({**row.values, "image": replace(row["image"], path="/nowhere/at/all.png")}, "rows", 1)
    [example] = bench.task.encode([gone], bench.loaded.processor, Limit(64))
    assert set(example) == {"path", "patches", "target"} and example["patches"] == 4
