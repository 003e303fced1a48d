"""What a paper must say about the run: one paragraph, one table, and the sources as BibTeX."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from tunesmith.recipe import Data
from tunesmith.recipe.methods import Facts
from tunesmith.report import wording
from tunesmith.report.bibliography import BIBTEX, OF_AVERAGES, OF_OPTIONS
from tunesmith.report.card import score_rows, settings
from tunesmith.report.continual import how_it_remembers
from tunesmith.report.continual import sources as sources_of_memory
from tunesmith.report.lesson import how_it_was_taught, sources
from tunesmith.report.membership import how_it_was_shared
from tunesmith.report.record import Record
from tunesmith.report.rendering import render, to_markdown

ADAMW = "AdamW (Loshchilov and Hutter, 2019; betas 0.9 and 0.999, epsilon 1e-8)"
SCHEDULES = {
    "linear": "and then fell linearly to zero",
    "cosine": "and then fell to zero along a half cosine",
    "constant": "and then stayed constant",
    "slanted-triangular": "from 1/32 of it, and then fell back there in a line (Howard and Ruder, 2018)",
}


def make_paper(record: Record) -> str:
    """paper.md, ready to be pasted into a manuscript."""
    sentences = [
        _on_model(record),
        *_on_data(record),
        *_on_training(record),
        *how_it_was_shared(record),
        *how_it_was_taught(record),
        _on_machine(record),
        *_on_scores(record),
        *how_it_remembers(record),
    ]
    entries = [BIBTEX[key] for key in _sources(record)]
    return render(
        "paper.md",
        name=record.name,
        paragraph=Markup(" ").join(to_markdown(sentence) for sentence in sentences),
        settings=settings(record),
        scores=score_rows(record),
        metrics=[wording.metric(name) for name in record.judged],
        record=record,
        bibtex=Markup("\n\n".join(entries)),  # noqa: S704 - constants of this file
    )


def _sources(record: Record) -> list[str]:
    facts = record.recipe.method.facts
    recipe = record.recipe
    cited = [key for name, key in OF_OPTIONS.items() if getattr(recipe.method, name, None)]
    cited += [OF_OPTIONS["layer_decay"]] * (recipe.train.lr_scheduler == "slanted-triangular")
    cited += [OF_AVERAGES] * (recipe.train.ema is not None)
    method = list(dict.fromkeys([*([facts.cited] if facts.cited else []), *cited]))
    method += ["peft"] if record.is_of_peft else []
    baselines = ["pedregosa2011scikit"] if record.baselines.keys() & {"tfidf", "linear-probe"} else []
    return [
        *method,
        *sources(record),
        *sources_of_memory(record),
        "loshchilov2019adamw",
        "efron1993bootstrap",
        "wolf2020transformers",
        *baselines,
    ]


def _on_model(record: Record) -> str:
    base, parameters = record.manifest["base"], record.manifest["parameters"]
    weights = {name: digest for name, digest in base["sha256"].items() if name.endswith(".safetensors")}
    digests = [f"{name} {digest[: wording.HASH_SHOWN]}" for name, digest in weights.items()]
    version = f"revision {base['revision']}" if base["revision"] else f"SHA-256 of the weights: {', '.join(digests)}"
    source = _cited(record.recipe.method.facts)
    libraries = f"transformers {record.manifest['versions'].get('transformers')} (Wolf et al., 2020)"
    libraries += f" and PEFT {record.manifest['versions'].get('peft')} (Mangrulkar et al., 2022)" * record.is_of_peft
    return (
        f"We fine-tuned {record.base_name} ({version}) for {record.recipe.task.kind} with Tunesmith "
        f"{record.manifest['tunesmith']}, {libraries}, by {wording.method(record.recipe)}{source}; "
        f"{parameters['trainable']:,} of {parameters['total']:,} parameters were trained."
    )


def _cited(facts: Facts) -> str:
    """The paper of a method as a sentence cites it: (Hu et al., 2021)."""
    if not facts.cited:
        return ""
    authors, _, year = facts.source.partition(",")[0].rpartition(" ")
    return f" ({authors}, {year})"


def _test_rows(data: Data) -> str:
    if not isinstance(data.test, float):
        return "The test rows were"
    share = f"{data.test:g} of the {'groups' if data.group else 'distinct inputs'}"
    return f"The test rows ({share} in the training file, split off first, by another hash) were"


def _on_data(record: Record) -> list[str]:
    splits, data = record.data["splits"], record.recipe.data
    sizes = [f"{split['rows']:,} {name} rows" for name, split in splits.items()]
    labels = [] if record.has_texts else record.manifest["labels"]
    said = [f"The data were {wording.listing(sizes)}{f' in {len(labels)} classes' if labels else ''}."]
    if not isinstance(data.validation, float | int):
        came = "in a file" if isinstance(data.validation, str) else "in files"
        said.append(f"The validation rows came {came} of their own.")
    elif "validation" not in splits:
        said.append("The training rows are those that an earlier run had kept; there were no validation rows any more.")
    else:
        key = f"group (column {data.group})" if data.group else "normalised input"
        said.append(
            f"Validation rows were split off the training file where the hash of the {key} fell below a threshold "
            f"of {data.validation:g}, so that equal ones never straddle; each class with at least two and none in "
            "validation gave the one with the smallest hash."
        )
    if data.limit is not None:
        said.append(f"At most {data.limit:,} rows of the training file were used, chosen by hash.")
    if record.split == "test":
        said.append(f"{_test_rows(data)} not looked at until training was over.")
    leaked, skipped = record.data.get("leaked", 0), record.skipped_rows
    said += [f"{wording.count(leaked, 'test row')} also occurred in the training rows."] if leaked else []
    said += [f"{wording.count(skipped, 'malformed row')} left out."] if skipped else []
    if not record.reads_tokens:
        return said
    cut = [f"{split['cut']:,} {name}" for name, split in splits.items() if split["cut"]]
    read = wording.LONG_TEXTS[record.data.get("long_text", "truncate")].format(record.data["max_length"])
    said += [f"Of longer inputs {read}; so {wording.listing(cut) or 'none'} lost a part."]
    return said


def _on_training(record: Record) -> list[str]:
    train, manifest = record.recipe.train, record.manifest
    clipped = f"gradients were clipped to norm {train.max_grad_norm:g}" if train.max_grad_norm else "without clipping"
    length = f"{train.steps:,} steps" if train.steps else f"{train.epochs:g} epochs ({manifest['steps']:,} steps)"
    held = ", nor on pre-trained weights" if getattr(record.recipe.method, "l2_sp", None) else ""
    said = [
        f"Training used {ADAMW} with a highest learning rate of {float(train.learning_rate):g} that rose linearly "
        f"in the first {wording.share(train.warmup_ratio)} of the steps {SCHEDULES[train.lr_scheduler]}, weight decay "
        f"{train.weight_decay:g} (not on biases and norms{held}), batch size {train.batch_size:,} and "
        f"{train.precision} arithmetic; {clipped}. It was set to {length} with seed {manifest['seed']}."
    ]
    primary, every = wording.in_prose(record.primary), train.evaluate_every
    patience = train.early_stopping_patience
    running = "running means of the weights (Polyak and Juditsky, 1992), each step counting"
    kept = "weights" if train.ema is None else f"{running} {1 - train.ema:g},"
    stopping = (
        f"with early stopping after {patience} evaluations without gain" if patience else "without early stopping"
    )
    said.append(
        f"Every {every} steps the validation rows were scored by {primary}, {stopping}; {record.last_step:,} steps "
        f"were run and the {kept} of step {manifest['best_step']:,} were kept."
    )
    if train.refit:
        said.append(
            f"A new model was then trained for {manifest['best_step']:,} steps on train + validation, and kept."
        )
    return said


def _on_machine(record: Record) -> str:
    hardware, manifest = record.manifest["hardware"], record.manifest
    machine = ", ".join(hardware["gpus"]) or f"{hardware['processor']} ({hardware['cpu_capability']})"
    processes, threads = wording.count(manifest["processes"], "process", "processes"), manifest["threads"]
    return (
        f"Training took {wording.duration(record.cost['training_seconds'])} on {machine} with "
        f"{processes} of {wording.count(threads, 'thread')} "
        f"and torch {manifest['versions']['torch']}."
    )


def _on_general_texts(record: Record) -> list[str]:
    general = record.general
    if not general:
        return []
    after = _bracketed(general["after"]["perplexity"])
    texts = wording.count(general["texts"], "text")
    if not general["before"]:
        return [f"On {texts} of the language at large its perplexity was {after}."]
    change = general["change"]["perplexity"]
    between = f"{wording.signed(change['value'])} ({wording.signed(change['low'])} to {wording.signed(change['high'])})"
    before = _bracketed(general["before"]["perplexity"])
    return [
        f"On {texts} of the language at large perplexity went from {before} before training to {after}, a paired "
        f"difference of {between}."
    ]


def _on_scores(record: Record) -> list[str]:
    rows = f"the {record.judged_rows:,} {record.split} rows"
    mine = [f"{wording.in_prose(name)} {_bracketed(score)}" for name, score in record.judged.items()]
    said = [
        f"On {rows} the tuned model reached {wording.listing(mine)} (in brackets: 95 % percentile bootstrap intervals "
        "over rows; Efron and Tibshirani, 1993)."
    ]
    if signatures := record.scores.get("signatures"):
        named = [f"{wording.in_prose(name)} {signature}" for name, signature in signatures.items()]
        said.append(f"Scores run from 0 to 1; the signatures of sacrebleu are {wording.listing(named)}.")
    title = wording.in_prose(record.primary)
    theirs = [
        f"{_bracketed(scores[record.primary])} by {_baseline(record, name)}"
        for name, scores in record.baselines.items()
    ]
    gain: Any = record.verdict["gain"]
    if theirs and gain:
        over = _baseline(record, record.verdict["over"])
        between = f"({wording.signed(gain['low'])} to {wording.signed(gain['high'])})"
        said.append(f"Baselines on the same rows reached {title} {wording.listing(theirs)}.")
        said.append(f"The paired difference to the best ({over}) was {wording.signed(gain['value'])} {between}.")
    said += _on_general_texts(record)
    if record.split != "test":
        said.append("There was no test set: the best step was chosen on these same rows, which flatters the figures.")
    clean = record.scores.get("test_without_overlap")
    if clean:
        said.append(f"Without the test rows that occur in training, {title} was {_bracketed(clean[record.primary])}.")
    return said


def _baseline(record: Record, name: str) -> str:
    return wording.baseline(name, record.target == "score")


def _bracketed(score: dict[str, float]) -> str:
    return f"{wording.exact(score['value'])} ({wording.interval(score)})"
