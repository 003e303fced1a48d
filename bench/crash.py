"""Kill it, damage it, starve it: does a resumed run end, bit for bit, where the undisturbed one does?

    python -m bench.crash                    all sections, 20 kills; about twelve minutes on two cores
    python -m bench.crash --ledger           and write the figures to bench/evidence/crash.json
    python -m bench.crash --only damage      one section (kills, stages, damage, disk, ranks, network, signals)

Every run goes through the public commands. A straight run is the measure: weights, scores, evaluations, predictions
and recorded steps (all but their seconds) of each disturbed and resumed run must equal its own. Finished cases are kept
in bench/work/crash (as long as the code does not change): start the script again and it goes on where it stopped.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import ledger
from bench.lab import (
    EVERY,
    KEPT,
    STEPS,
    Lab,
    descendants,
    finish,
    go_on,
    half_files,
    is_finished,
    judged,
    kill_all,
    log_of,
    recorded,
    resume,
    saved,
    start,
    wait_for,
    workers,
)  # fmt: skip

SUBJECTS = [f"src/tunesmith/{name}.py" for name in ("checkpoints", "fitting", "loop", "run", "folder")]
STAGES = ("reading the data", "loading the model", "baseline majority", "training", "judging", "reporting")

# Sections: each yields (name of a case, how to do it)

Case = tuple[str, Callable[[], dict]]


def kills(lab: Lab, many: int) -> Iterator[Case]:
    """SIGKILL at random moments of training: a third inside a checkpoint write, two again inside the resume."""
    for number in range(many):
        inside, twice = number % 3 == 1, number in (2, 5)
        yield f"kill-{number:02d}", lambda n=number, i=inside, t=twice: _killed(lab, f"kill-{n:02d}", n, i, t)


def _killed(lab: Lab, name: str, number: int, inside_write: bool, twice: bool) -> dict:
    source = random.Random(1000 * lab.seed + number)
    folder = lab.fresh(name)
    figures: dict = {"inside_write": inside_write, "killed_at": []}
    process = start(lab, folder)
    for _ in range(1 + twice):
        after = source.randrange(max(1, recorded(folder)), STEPS - 2)
        hit = wait_for(process, lambda step=after: recorded(folder) >= step)
        if inside_write:
            hit = wait_for(process, lambda: any((folder / "checkpoints").glob(".staging-*")), pause=0)
        else:
            time.sleep(source.random() * 0.2)
        kill_all(process)
        figures["killed_at"].append(recorded(folder))
        figures["left_staging"] = any((folder / "checkpoints").glob(".staging-*"))
        figures["ok_so_far"] = figures.get("ok_so_far", True) and hit and not half_files(folder)
        figures["had_checkpoint"] = bool(saved(folder))
        process = go_on(lab, folder)
    return judged(lab, folder, finish(process), **figures)


def stages(lab: Lab, many: int) -> Iterator[Case]:
    """SIGKILL as each stage of the story begins; where no run had begun yet, `run` must work again."""
    for stage in STAGES:
        name = f"stage-{stage.replace(' ', '-')}"
        yield name, lambda s=stage, n=name: _killed_in(lab, n, s)


def _killed_in(lab: Lab, name: str, stage: str) -> dict:
    folder = lab.fresh(name)
    process = start(lab, folder)
    mark = f'"name":"{stage}"'
    hit = wait_for(process, lambda: mark in log_of(folder).read_text(errors="replace"), pause=0.005)
    time.sleep(0.02 if stage != "loading the model" else 0.1)
    kill_all(process)
    figures = {"ok_so_far": hit and not half_files(folder), "had_checkpoint": bool(saved(folder))}
    figures["was_finished"] = is_finished(folder)
    return judged(lab, folder, finish(go_on(lab, folder)), **figures)


def damage(lab: Lab, many: int) -> Iterator[Case]:
    """Copies of one killed run, each spoilt in another way, most in their newest checkpoint."""
    once = threading.Lock()

    def killed_run() -> Path:
        folder = lab.root / "damage-source"
        with once:
            if not folder.exists() or len(saved(folder)) < KEPT:
                process = start(lab, lab.fresh(folder.name))
                wait_for(process, lambda: recorded(folder) >= 3 * EVERY + 2)
                kill_all(process)
        return folder

    for name, spoil in SPOILERS.items():
        yield f"damage-{name}", lambda n=name, s=spoil: _damaged(lab, killed_run(), f"damage-{n}", s)
    yield "damage-all", lambda: _all_damaged(lab, killed_run())
    yield "damage-ranks-changed", lambda: _ranks_changed(lab, killed_run())


def _flip(folder: Path) -> None:
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "weights.safetensors").write_bytes(content)


def _halve(folder: Path) -> None:
    os.truncate(folder / "moments.safetensors", (folder / "moments.safetensors").stat().st_size // 2)


SPOILERS: dict[str, Callable[[Path], None]] = {
    "one-bit": _flip,
    "half-a-file": _halve,
    "deleted-file": lambda folder: (folder / "state.json").unlink(),
    "deleted-manifest": lambda folder: (folder / "manifest.json").unlink(),
}


def _damaged(lab: Lab, source: Path, name: str, spoil: Callable[[Path], None]) -> dict:
    folder = lab.fresh(name)
    shutil.copytree(source, folder)
    steps = saved(folder)
    spoil(folder / "checkpoints" / f"step-{steps[-1]:09d}")
    figures = judged(lab, folder, finish(resume(folder)), had_checkpoint=True)
    said = "damaged checkpoint" in log_of(folder).read_text(errors="replace")
    figures |= {"expected_from": steps[-2], "said_on_stderr": said, "in_manifest": bool(figures.get("warnings"))}
    figures["ok"] = figures["ok"] and said and figures["in_manifest"] and figures["resumed_from"] == steps[-2]
    return figures


def _all_damaged(lab: Lab, source: Path) -> dict:
    folder = lab.fresh("damage-all")
    shutil.copytree(source, folder)
    steps = saved(folder)
    for step in steps:
        _flip(folder / "checkpoints" / f"step-{step:09d}")
    code, said = finish(resume(folder)), log_of(folder).read_text(errors="replace")
    named = all(f"step-{step:09d}" in said for step in steps)
    kept = saved(folder) == steps
    return {"exit": code, "each_named": named, "nothing_deleted": kept, "ok": code == 3 and named and kept}


def disk(lab: Lab, many: int) -> Iterator[Case]:
    """Checkpoints on a file system that fills up: by bytes before a write, and by inodes in the middle of one."""
    yield "disk-bytes", lambda: _disk_full(lab, "disk-bytes", "size=40m", "size=400m")
    yield "disk-in-a-write", lambda: _disk_full(lab, "disk-in-a-write", "size=400m,nr_inodes=13", "nr_inodes=1000")
    yield "disk-file-limit", lambda: _file_limit(lab)


def _disk_full(lab: Lab, name: str, small: str, large: str) -> dict:
    folder = lab.fresh(name)
    place = folder / "checkpoints"
    place.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", small, "tmpfs", str(place)], capture_output=True, text=True)
    if mounted.returncode != 0:
        return {"ok": None, "skipped": f"a tmpfs cannot be mounted here ({mounted.stderr.strip()})"}
    try:
        code, said = finish(start(lab, folder)), log_of(folder).read_text(errors="replace")
        names = {"path": str(place) in said, "needed": "bytes needed" in said, "free": "bytes free" in said}
        steps = saved(folder)
        subprocess.run(["mount", "-o", f"remount,{large}", str(place)], check=True)
        figures = {"exit_when_full": code, "message_names": names, "had_checkpoint": bool(steps)}
        figures["ok_so_far"] = code == 5 and all(names.values()) and bool(steps)
        return {**judged(lab, folder, finish(resume(folder)), **figures), "message": said.strip().splitlines()[-1]}
    finally:
        subprocess.run(["umount", str(place)], check=False)


def _file_limit(lab: Lab) -> dict:
    """A limit on the size of a file (a quota's nearest kin) under the size of the moments."""
    folder = lab.fresh("disk-file-limit")
    code = finish(start(lab, folder, before=["prlimit", "--fsize=8000000"]))
    said = log_of(folder).read_text(errors="replace").strip().splitlines()[-1]
    figures = {"exit_when_full": code, "message": said, "ok_so_far": code == 5 and "bytes needed" in said}
    return judged(lab, folder, finish(go_on(lab, folder)), **figures)


def ranks(lab: Lab, many: int) -> Iterator[Case]:
    """Two gloo processes, of which one is killed; and an interrupt that reaches all of them at once."""
    yield "ranks-straight", lambda: {"ok": bool(lab.run_straight(2)), "equals_one_process": _equals_one(lab)}
    for rank in (1, 0):
        yield f"ranks-kill-{rank}", lambda r=rank: _rank_killed(lab, r)
    yield "ranks-signal-to-all", lambda: _group_signalled(lab)


def _equals_one(lab: Lab) -> list[str]:
    """What one process and two have in common to the last bit (for information: rounding may differ)."""
    one, two = lab.run_straight(1), lab.run_straight(2)
    return [name for name in one if one[name] == two[name]]


def _rank_killed(lab: Lab, rank: int) -> dict:
    folder = lab.fresh(f"ranks-kill-{rank}")
    process = start(lab, folder, processes=2)
    hit = wait_for(process, lambda: recorded(folder) >= 2 * EVERY + 2)
    members = [process.pid, *descendants(process.pid)]
    os.kill(workers(process)[str(rank)], signal.SIGKILL)
    began = time.monotonic()
    code = finish(process, patience=120)
    seconds = time.monotonic() - began
    left = [pid for pid in members[1:] if Path(f"/proc/{pid}").exists()]
    figures = {"exit_when_killed": code, "seconds_to_end": round(seconds, 1), "left_alive": len(left)}
    figures |= {"had_checkpoint": bool(saved(folder)), "message": log_of(folder).read_text(errors="replace")[-300:]}
    figures["ok_so_far"] = hit and seconds < 60 and code != 0 and not left
    return judged(lab, folder, finish(resume(folder)), processes=2, **figures)


def _group_signalled(lab: Lab) -> dict:
    """Ctrl-C in a terminal reaches every process of the group at once."""
    folder = lab.fresh("ranks-signal-to-all")
    process = start(lab, folder, processes=2)
    hit = wait_for(process, lambda: recorded(folder) >= EVERY + 2)
    os.killpg(process.pid, signal.SIGINT)
    code = finish(process, patience=90)
    lost = recorded(folder) - max(saved(folder), default=0)
    figures = {"exit_when_signalled": code, "steps_lost": lost, "had_checkpoint": True}
    figures["ok_so_far"] = hit and code == 130 and lost == 0
    return judged(lab, folder, finish(resume(folder)), processes=2, **figures)


def _ranks_changed(lab: Lab, source: Path) -> dict:
    """Not damage to a file but to the settings: another number of processes is refused, and nothing is lost by it."""
    folder = lab.fresh("damage-ranks-changed")
    shutil.copytree(source, folder)
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("processes: 1", "processes: 2"))
    code, said = finish(resume(folder)), log_of(folder).read_text(errors="replace")
    named = "processes was 1, is 2" in said
    recipe.write_text(recipe.read_text().replace("processes: 2", "processes: 1"))
    return judged(lab, folder, finish(resume(folder)), had_checkpoint=True, refused=code, ok_so_far=code == 3 and named)


def network(lab: Lab, many: int) -> Iterator[Case]:
    """A full local run without any network, and one watched for connections."""
    yield "network-none", lambda: _without_network(lab)
    yield "network-watched", lambda: _watched(lab)


def _without_network(lab: Lab) -> dict:
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode != 0:
        return {"ok": None, "skipped": "network namespaces cannot be made here"}
    folder = lab.fresh("network-none")
    return judged(lab, folder, finish(start(lab, folder, before=["unshare", "-n"])))


def _watched(lab: Lab) -> dict:
    if shutil.which("strace") is None:
        return {"ok": None, "skipped": "strace is not installed"}
    folder = lab.fresh("network-watched")
    trace = folder.with_suffix(".strace")
    watch = ["strace", "-f", "--seccomp-bpf", "-e", "trace=connect,sendto", "-o", str(trace)]
    figures = judged(lab, folder, finish(start(lab, folder, before=watch)))
    lines = trace.read_text(errors="replace").splitlines()
    reached = [line for line in lines if "AF_INET" in line]
    return {**figures, "calls_seen": len(lines), "to_inet": reached[:5], "ok": figures["ok"] and not reached}


def signals(lab: Lab, many: int) -> Iterator[Case]:
    """One signal: a checkpoint at the next step, then the end. A second one: the end at once."""
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        for twice in (False, True):
            name = f"signals-{number.name}{'-twice' if twice else ''}"
            yield name, lambda n=name, s=number, c=code, t=twice: _signalled(lab, n, s, c, t)


def _signalled(lab: Lab, name: str, number: signal.Signals, expected: int, twice: bool) -> dict:
    folder = lab.fresh(name)
    process = start(lab, folder)
    hit = wait_for(process, lambda: recorded(folder) >= EVERY + 2)
    at = recorded(folder)
    began = time.monotonic()
    process.send_signal(number)
    if twice:
        time.sleep(0.01)
        process.send_signal(number)
    code = finish(process, patience=60)
    seconds, lost = time.monotonic() - began, recorded(folder) - max(saved(folder), default=0)
    figures = {"exit_when_signalled": code, "seconds": round(seconds, 2), "steps_after": recorded(folder) - at}
    figures |= {"steps_lost": lost, "had_checkpoint": True}
    figures["ok_so_far"] = hit and code == expected and seconds < 5 and (twice or lost == 0)
    return judged(lab, folder, finish(resume(folder)), **figures)


SECTIONS = {
    "kills": kills,
    "stages": stages,
    "damage": damage,
    "disk": disk,
    "ranks": ranks,
    "network": network,
    "signals": signals,
}
ALONE = ("ranks",)
"""Sections that use both cores themselves."""


def carry_out(lab: Lab, sections: list[str], many: int, jobs: int) -> dict[str, dict]:
    """All cases of some sections. Those that held before are taken from the notes; what failed is tried again."""
    notes = lab.root / "cases.jsonl"
    rows = map(json.loads, notes.read_text().splitlines()) if notes.exists() else ()
    done = {row["case"]: row["figures"] for row in rows if row["figures"]["ok"] is not False}
    lock, results = threading.Lock(), {}

    def do(case: Case) -> None:
        name, act = case
        if name not in done:
            began = time.monotonic()
            figures = {**act(), "took": round(time.monotonic() - began, 1)}
            figures = json.loads(json.dumps(figures).replace(str(lab.root), "WORK"))
            with lock, open(notes, "a") as file:
                file.write(json.dumps({"case": name, "figures": figures}) + "\n")
                done[name] = figures
            print(f"{name}: {'ok' if figures['ok'] else json.dumps(figures)}", file=sys.stderr, flush=True)
        results[name] = done[name]

    lab.run_straight()
    for section in sections:
        with ThreadPoolExecutor(1 if section in ALONE else jobs) as pool:
            list(pool.map(do, SECTIONS[section](lab, many)))
    return results


def summary(results: dict[str, dict]) -> dict:
    """The figures to remember: by section how many cases held, and every case that did not."""
    table: dict[str, dict] = {}
    for name, figures in results.items():
        row = table.setdefault(name.partition("-")[0], {"cases": 0, "held": 0, "skipped": 0})
        row["cases"] += 1
        row["held"] += figures["ok"] is True
        row["skipped"] += figures["ok"] is None
    killed = [figures for name, figures in results.items() if name.startswith("kill-")]
    if killed:
        table["kill"] |= {
            "inside_a_write": sum(row["inside_write"] for row in killed),
            "left_a_staging_folder": sum(row["left_staging"] for row in killed),
            "killed_twice": sum(len(row["killed_at"]) == 2 for row in killed),
            "had_a_checkpoint": sum(row["had_checkpoint"] for row in killed),
            "resumed_from_it": sum(row["had_checkpoint"] and row.get("resumed_from", 0) > 0 for row in killed),
        }
    return {"sections": table, "failed": {name: row for name, row in results.items() if row["ok"] is False}}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.crash", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="how many runs to kill at random moments")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas between")
    parser.add_argument("--jobs", type=int, default=2, help="cases at the same time")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--work", type=Path, default=ledger.ROOT / "bench" / "work" / "crash", help="where to work")
    parser.add_argument("--ledger", action="store_true", help="write bench/evidence/crash.json")
    options = parser.parse_args()
    sections = [name for name in options.only.split(",") if name]
    if unknown := set(sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(unknown)}; there are: {', '.join(SECTIONS)}")
    began = time.monotonic()
    sources = [str(path.relative_to(ledger.ROOT)) for path in (ledger.ROOT / "src" / "tunesmith").rglob("*.py")]
    code = ledger.fingerprint([*sources, "bench/crash.py", "bench/lab.py"])
    lab = Lab(options.work.absolute() / f"{code}-{options.seed}", options.seed)
    lab.settle()
    results = carry_out(lab, sections, options.kills, options.jobs)
    figures = {"kills": options.kills, "steps": STEPS, **summary(results), "cases": results}
    print(json.dumps(figures, indent=2))
    if options.ledger:
        took = sum(row["took"] for row in results.values())
        command = f"python -m bench.crash --kills {options.kills} --seed {options.seed}"
        ledger.write("crash", figures, command, SUBJECTS, max(time.monotonic() - began, took / options.jobs))
    return int(bool(figures["failed"]))


if __name__ == "__main__":
    sys.exit(main())
