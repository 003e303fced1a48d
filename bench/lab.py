"""The laboratory of the crash bench: a small model, rows and a recipe; runs of the public commands, watched from
outside, disturbed, and compared with an undisturbed run."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

STEPS, EVERY, KEPT = 30, 5, 2
RECIPE = f"""\
model: ./base
data: {{train: train.jsonl, test: test.jsonl}}
train: {{steps: {STEPS}, batch_size: 32, learning_rate: 3e-4, evaluate_every: 10, checkpoint_every: {EVERY}}}
judge: {{baselines: [majority]}}
machine: {{device: cpu, threads: 1}}
"""
TEXT = """card money bank lost stolen transfer refund late wrong twice why how when where please help my the not"""
PATIENCE = 600
"""Seconds after which a process counts as hanging; a slow disk alone can hold one up for minutes."""


@dataclass
class Lab:
    """A folder with a base model, rows and a recipe, in which the cases do their work."""

    root: Path
    seed: int = 0
    straight: dict[int, dict] = field(default_factory=dict)

    def settle(self) -> None:
        """Make base, rows and recipe once, and the straight run on one process."""
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "recipe.yaml").write_text(RECIPE)
        write_rows(self.root / "train.jsonl", 480, seed=1)
        write_rows(self.root / "test.jsonl", 60, seed=2)
        if not (self.root / "base" / "config.json").exists():
            make_base(self.root / "base")

    def run_straight(self, processes: int = 1) -> dict:
        """The undisturbed run's fingerprint; trained once."""
        folder = self.root / f"straight-{processes}"
        if processes not in self.straight:
            if not is_finished(folder):
                finish(start(self, folder, processes))
            self.straight[processes] = fingerprint(folder)
        return self.straight[processes]

    def fresh(self, name: str) -> Path:
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder


def write_rows(path: Path, many: int, seed: int) -> None:
    source, labels = random.Random(seed), ("card", "cash", "transfer")
    rows = []
    for index in range(many):
        words = [*source.choices(TEXT.split(), k=source.choice((3, 8, 20))), f"{index}"]
        words.insert(source.randrange(len(words)), labels[index % 3] if source.random() < 0.9 else "unsure")
        rows.append(json.dumps({"text": " ".join(words), "label": labels[index % 3]}) + "\n")
    path.write_text("".join(rows))


def make_base(folder: Path) -> None:
    """A random BERT of 1.3 M parameters: a step takes about 0.1 s and a checkpoint 15 MB, so kills hit both."""
    import torch
    import transformers

    folder.mkdir(parents=True)
    signs = [chr(code) for code in (*range(ord("a"), ord("z") + 1), *range(ord("0"), ord("9") + 1))]
    words = dict.fromkeys([*TEXT.split(), "cash", "unsure", *signs, *(f"##{sign}" for sign in signs)])
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    transformers.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    size = {"hidden_size": 160, "intermediate_size": 640, "num_hidden_layers": 4, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(vocabulary), max_position_embeddings=66, **size)
    transformers.AutoModel.from_config(config).save_pretrained(folder)


# Runs by the public commands, watched from outside


def spawn(arguments: list[str], log: Path, before: list[str] | None = None) -> subprocess.Popen:
    """Start `tunesmith ARGUMENTS` in a session of its own, its stderr in `log`."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(log.parent / "cache"), "HF_HOME": str(log.parent / "hf")}
    with open(log, "wb") as errors, open(log.with_suffix(".out"), "wb") as answers:
        command = [*(before or []), sys.executable, "-m", "tunesmith", *arguments]
        return subprocess.Popen(command, stdout=answers, stderr=errors, env=environment, start_new_session=True)


def start(lab: Lab, folder: Path, processes: int = 1, before: list[str] | None = None) -> subprocess.Popen:
    settings = ["--set", f"output={folder}", "--set", f"machine.processes={processes}"]
    return spawn(["run", str(lab.root / "recipe.yaml"), "--json", *settings], log_of(folder), before)


def resume(folder: Path) -> subprocess.Popen:
    return spawn(["resume", str(folder), "--json"], log_of(folder))


def log_of(folder: Path) -> Path:
    return folder.with_suffix(".log")


def finish(process: subprocess.Popen, patience: float = PATIENCE) -> int:
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        kill_all(process)
        return -999


def kill_all(process: subprocess.Popen) -> None:
    for pid in [process.pid, *descendants(process.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def descendants(pid: int) -> list[int]:
    """Processes below one, by /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        mine = children.get(queue.pop(), [])
        found += mine
        queue += mine
    return found


def workers(process: subprocess.Popen) -> dict[str, int]:
    """The process of each rank below a launcher."""
    found = {}
    for pid in descendants(process.pid):
        with contextlib.suppress(OSError):
            values = dict(item.partition("=")[::2] for item in Path(f"/proc/{pid}/environ").read_text().split("\0"))
            if "RANK" in values:
                found[values["RANK"]] = pid
    return found


def recorded(folder: Path) -> int:
    """The last step in steps.jsonl."""
    file = folder / "steps.jsonl"
    whole = [line for line in file.read_bytes().splitlines(True) if line.endswith(b"\n")] if file.exists() else []
    return json.loads(whole[-1])["step"] if whole else 0


def saved(folder: Path) -> list[int]:
    """Steps of the checkpoints under their final names."""
    return sorted(int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*"))


def wait_for(process: subprocess.Popen, happened: Callable[[], bool], pause: float = 0.001) -> bool:
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        if happened():
            return True
        time.sleep(pause)
    return False


def is_finished(folder: Path) -> bool:
    file = folder / "manifest.json"
    return file.exists() and bool(json.loads(file.read_text()).get("finished"))


def fingerprint(folder: Path) -> dict:
    """What must be equal, by name: hashes of files, and the steps without their seconds."""
    files = [*folder.glob("model/*.safetensors"), *folder.glob("predictions/*.jsonl")]
    files += [folder / "scores.json", folder / "evaluations.jsonl"]
    prints = {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    without = [{key: value for key, value in step.items() if key != "seconds"} for step in steps]
    return {**prints, "steps.jsonl": hashlib.sha256(json.dumps(without).encode()).hexdigest()}


def half_files(folder: Path) -> list[str]:
    """Files that are torn under their final names."""
    torn = []
    for file in folder.glob("*.json"):
        try:
            json.loads(file.read_bytes())
        except ValueError:
            torn.append(file.name)
    return torn


def judged(lab: Lab, folder: Path, code: int, processes: int = 1, **figures: object) -> dict:
    """A case's figures: how the resumed run ended, and what differs from the straight one."""
    figures |= {"exit": code, "differs": ["it did not finish"], "ok": False}
    if code == 0 and is_finished(folder):
        mine, straight = fingerprint(folder), lab.run_straight(processes)
        figures["differs"] = [name for name in {**mine, **straight} if mine.get(name) != straight.get(name)]
        manifest = json.loads((folder / "manifest.json").read_text())
        figures |= {"resumed_from": manifest["resumed_from"], "warnings": manifest["warnings"]}
        expected = figures.get("had_checkpoint") and not figures.get("was_finished")
        kept_going = manifest["resumed_from"] > 0 or not expected
        figures["ok"] = not figures["differs"] and kept_going and figures.get("ok_so_far", True)
    if not figures["ok"]:
        figures["stderr"] = log_of(folder).read_text(errors="replace")[-600:]
    return figures


def go_on(lab: Lab, folder: Path) -> subprocess.Popen:
    """Resume; a run killed before its folder was begun is run again, as its user would."""
    return resume(folder) if (folder / "recipe.yaml").exists() else start(lab, folder)
