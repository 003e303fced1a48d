"""A run folder opened: its figures, and its model ready to answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tunesmith import folder as folders
from tunesmith import methods, tasks
from tunesmith.answering import Details, Source, named, shown, stream_answers
from tunesmith.data.columns import check_cell
from tunesmith.data.loading import hash_of
from tunesmith.data.rows import Row
from tunesmith.data.sources import Reading, read_source, stop_or_skip
from tunesmith.devices import Devices, choose_devices, give_back_memory
from tunesmith.errors import CheckpointError, DataError, RecipeError
from tunesmith.evaluation import as_predictions, predict, score
from tunesmith.folder import RunFolder
from tunesmith.models.loaded import Loaded
from tunesmith.models.references import CARD, based_on, find_base, find_base_of, require_unchanged
from tunesmith.models.shared_weights import SharedWeights, tensors_of_base
from tunesmith.recipe import Machine
from tunesmith.recipe import methods as method_settings
from tunesmith.recipe import tasks as task_settings
from tunesmith.report.manifest import now
from tunesmith.tasks.contract import Answer, Limit


class Run:
    """A finished (or begun) run. Reading a figure needs no model; the first prediction loads it.

    >>> run = Run("runs/banking77")         # doctest: +SKIP
    >>> run.scores["test"]["accuracy"]      # doctest: +SKIP
    {'value': 0.93, 'low': 0.92, 'high': 0.94}
    """

    def __init__(
        self, path: str | os.PathLike[str], machine: Machine | None = None, weights: SharedWeights | None = None
    ) -> None:
        """`weights`: what other runs hold already, for this one to use."""
        self.folder = RunFolder(path)
        self.machine = machine or Machine()
        self._weights = weights

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r})"

    @property
    def manifest(self) -> dict[str, Any]:
        return folders.read_json(self.folder.manifest)

    @property
    def scores(self) -> dict[str, Any]:
        return folders.read_json(self.folder.scores)

    @property
    def audits(self) -> dict[str, Any]:
        """What was measured besides the scores: cost, what was forgotten, distillation."""
        return folders.read_json(self.folder.audits)

    @property
    def verdict(self) -> dict[str, Any]:
        return folders.read_json(self.folder.verdict)

    def predict(
        self,
        texts: Sequence[str | tuple[str, ...]],
        probabilities: bool = False,
        top_k: int = 0,
        abstain_below: float | None = None,
    ) -> list[dict[str, Any]]:
        """Answer texts (or pairs of texts, or images by their paths), in their order: [{"label", "score"}, ..]; with
        many labels {"labels", "score", "scores"}, in a taxonomy also "levels", for a number {"score"}, for entities
        {"entities": [{"entity_group", "score", "word", "start", "end"}, ..]}, for written texts {"summary_text"} or
        {"translation_text"}.

        Args:
            probabilities: tell those of all labels, under "scores".
            top_k: tell so many of the likeliest labels, under "top".
            abstain_below: answer None where the score is lower, and tell so under "abstained".

        Raises:
            DataError: a text that no row may hold: an empty one, or one with half a character.
        """
        rows = [_as_row(text, number, self.inputs) for number, text in enumerate(texts, start=1)]
        return self.answer_rows(rows, Details(probabilities, top_k, abstain_below))

    def rows_of(self, texts: Sequence[str]) -> list[str | tuple[str, ...]]:
        """Texts one after the other as rows: a model that needs several for a row (a question and its text) takes them
        in turn.

        Raises:
            DataError: some are left over.
        """
        needed = [column.name for column in self.inputs if column.required]
        if len(needed) < 2:
            return list(texts)
        if len(texts) % len(needed):
            remedy = f"give {', then '.join(needed)}, each as one argument; or rows of these in a file (--data)"
            raise DataError(f"{len(texts)} texts, and a row of this model needs {len(needed)}", "predict", remedy)
        return [tuple(texts[first : first + len(needed)]) for first in range(0, len(texts), len(needed))]

    def predict_file(
        self,
        data: Source,
        columns: dict[str, str] | None = None,
        probabilities: bool = False,
        top_k: int = 0,
        abstain_below: float | None = None,
        on_bad_row: str = "stop",
    ) -> Iterator[dict[str, Any]]:
        """Answer every row of a file (or of files, a glob, a data set on a hub) as `predict` does, with its 0-based
        "row"; in constant memory, so that a file may be of any length.

        Args:
            columns: our column names and those of the file; without, those of the recipe where the file has them.
            on_bad_row: `stop` ends with a DataError that names the row; `skip` gives {"row", "fault"} for it.
        """
        return stream_answers(self, data, columns, Details(probabilities, top_k, abstain_below), on_bad_row)

    def evaluate(self, data: Source, columns: dict[str, str] | None = None) -> dict[str, Any]:
        """Score the model on labelled rows. A look at the sealed test is counted in the run folder.

        Raises:
            RecipeError: it is a look, and nothing can be written there; known before anything is answered.
        """
        usual = {} if columns else self.usual_columns
        reading = read_source(named(data), self._columns, columns or {}, split="test", usual=usual)
        stop_or_skip(reading, "stop")
        is_look = self._is_look(reading)
        if is_look:
            self._require_ledger()
        answers = self._answer(reading.rows)
        measures = self._task.measures(as_predictions([self._task.gold(row) for row in reading.rows], answers))
        if is_look:
            look = {"when": now(), "by": "evaluate", "rows": len(reading.rows), "sha256": reading.digest}
            folders.append(self.folder.looks, look)
        looks = len(folders.lines(self.folder.looks))
        return {"rows": len(reading.rows), "scores": score(measures), "looks_at_test": looks}

    def _is_look(self, reading: Reading) -> bool:
        """Whether a file of the sealed test was read, or its very rows in another kind of file."""
        sealed = self.manifest.get("data", {}).get("test", {})
        files = {sealed.get("file_sha256"), *sealed.get("files_sha256", [])}
        same_rows = hash_of(reading.rows, self._columns) == sealed.get("rows_sha256")
        return not files.isdisjoint(reading.hashes) or same_rows

    def _require_ledger(self) -> None:
        """Refuse a look that could not be counted: its scores would then be thrown away when they are known."""
        try:
            folders.require_permission(self.folder.looks)
        except RecipeError as error:
            message = f"{error.message}: these rows are the run's sealed test, and every look at it is counted there"
            remedy = "change who may write to the run folder, or evaluate on other rows"
            raise RecipeError(message, str(self.folder.looks), remedy) from None

    def answer_rows(
        self, rows: Sequence[Row], details: Details, progress: Callable[[int], None] = lambda done: None
    ) -> list[dict[str, Any]]:
        """Answers to rows as they are shown to people, in their order."""
        return shown(self._task, rows, self.outputs(rows, progress), self.card["decision"], details)

    def _answer(self, rows: Sequence[Row]) -> list[Answer]:
        return list(self._task.answers(self.outputs(rows), rows, self.card["decision"]))

    def outputs(self, rows: Sequence[Row], progress: Callable[[int], None] = lambda done: None) -> list[Any]:
        """The task's raw output for each row."""
        limit = Limit(self.card["max_length"], self.card["long_text"])
        examples = self._task.encode(rows, self.loaded.processor, limit)
        return predict(self.loaded, self._task, examples, self._devices, progress)

    @cached_property
    def card(self) -> dict[str, Any]:
        """What was written beside the weights: base, task, labels, longest input."""
        if not (self.folder.model / CARD).is_file():
            raise _no_model(self.folder)
        return _checked(folders.read_json(self.folder.model / CARD), self.folder.model / CARD)

    @cached_property
    def loaded(self) -> Loaded:
        """The tuned model, ready to answer."""
        return self.load(self._devices)

    def load(self, devices: Devices) -> Loaded:
        """The tuned model on these devices, ready to answer."""
        method = methods.build(method_settings.KINDS[self.card["method"]["kind"]](**self.card["method"]))
        reference = method.base_to_open(self.folder.model, based_on(self.card, self.folder.model))
        if reference == str(self.folder.model):  # its own weights: whatever has become of its base is all the same
            base = find_base(reference)
        else:
            base = find_base_of(self.folder.model, reference)
            require_unchanged(base, self.folder.manifest)
        loaded = self._task.load(base, self.card["seed"], devices.stored)
        of_base = tensors_of_base(loaded.model) if self._weights else {}
        loaded = method.open(loaded, self.folder.model)
        loaded.model.to(devices.device).eval()
        if self._weights:
            self._weights.share(loaded.model, of_base, all_of_it=reference == str(self.folder.model))
            give_back_memory()
        return loaded

    @cached_property
    def _devices(self) -> Devices:
        return choose_devices(self.machine, "fp32")

    @cached_property
    def _task(self) -> Any:
        task = tasks.build(task_settings.KINDS[self.card["task"]["kind"]](**self.card["task"]))
        task.recall(self.card["learned"])
        return task

    @property
    def inputs(self) -> list[task_settings.Column]:
        """The columns that a row needs to be answered."""
        return [column for column in self._columns if column.is_input and not column.to_learn]

    @property
    def usual_columns(self) -> dict[str, str]:
        """The `data.columns` that the model was trained with. Models of before they were kept have none."""
        return dict(self.card.get("columns", {}))

    @property
    def _columns(self) -> Sequence[task_settings.Column]:
        return self._task.settings.columns


def open_together(paths: Sequence[str | os.PathLike[str]], machine: Machine | None = None) -> list[Run]:
    """Runs ready to answer, one after the other, that hold in memory once what is the same in them to the bit: many
    adapters on one base. Each answers as it does alone; several threads may use different runs at once.

    Raises:
        CheckpointError: one of them has no model.
    """
    weights, runs = SharedWeights(), []
    for path in paths:
        runs.append(Run(path, machine, weights))
        _ = runs[-1].loaded  # now, one after the other: each brings a copy of the base, which is let go at once
    return runs


def _no_model(folder: RunFolder) -> CheckpointError:
    """What a folder is that no answers can come from."""
    where = str(folder.path)
    if parts := folder.parts:
        remedy = f"name one of them: {', '.join(map(str, parts))}"
        return CheckpointError("a run of several tasks, each of which has a model of its own", where, remedy)
    if folder.exists:
        return CheckpointError("no finished model in this folder", where, f"{folder.how_to_finish()} goes on with it")
    if (folder / CARD).is_file():
        run = Path(os.path.abspath(where)).parent
        return CheckpointError("the model of a run, not a run folder", where, f"name the run folder: {run}")
    is_there = folder.path.is_dir()
    said = "no run in this folder" if is_there else "not a folder" if folder.path.exists() else "no such folder"
    return CheckpointError(said, where, "name a run folder: what `tunesmith run` has written its report to")


def _checked(card: Any, place: Path) -> dict[str, Any]:
    """A card whose every field is what we write; anything else is named before it is used."""
    try:
        for part, known in (("task", task_settings.KINDS), ("method", method_settings.KINDS)):
            kind = card[part]["kind"]
            if isinstance(kind, str) and kind not in known:
                remedy = f"open it with the version that trained it; this one knows {', '.join(known)}"
                raise CheckpointError(f"a {part} of an unknown kind, {kind!r}", str(place), remedy)
        good = [
            card["task"]["kind"] in task_settings.KINDS,
            card["method"]["kind"] in method_settings.KINDS,
            isinstance(card["labels"], list) and len(card["labels"]) >= 1,
            card["learned"]["labels"] == card["labels"],
            isinstance(card["decision"], dict),
            all(isinstance(text, str) for names in card.get("columns", {}).items() for text in names),
            card["long_text"] in ("truncate", "head_tail", "windows", "chunks"),
            all(isinstance(text, str) for text in (*card["labels"], card["base"])),
            all(isinstance(number, int) for number in (card["max_length"], card["seed"])),
        ]
    except (TypeError, KeyError, AttributeError):
        good = [False]
    if not all(good):
        raise CheckpointError("not a card of ours", str(place), "restore the run's model folder from a copy")
    return card


def _as_row(text: str | tuple[str, ...], number: int, columns: Sequence[task_settings.Column]) -> Row:
    """A text, or a pair, checked as the cells of a file are."""
    cells = text if isinstance(text, tuple | list) else (text,)
    if len(cells) > len(columns):
        raise DataError(f"{len(cells)} texts in one row", f"input:{number}", f"the model reads {len(columns)} at most")
    values: dict[str, Any] = {}
    for column, cell in zip_longest(columns, cells):
        values[column.name], fault = check_cell(column, cell)
        if fault:
            names = ", ".join(column.name for column in columns)
            remedy = f"the model reads {names}: give rows of these in a file (--data)" if cell is None else ""
            raise DataError(f"{column.name} {fault}", f"input:{number}", remedy)
    return Row({name: value for name, value in values.items() if value is not None}, "input", number)
