"""The evidence ledger: what was measured, when, by which command, on which commit, and whether it still speaks.

Evidence names its subjects, the files it says something about, with their SHA-256. It is valid while they are
unchanged and stale as soon as one of them is not. `python -m bench.ledger` lists all of it.
"""

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EVIDENCE = Path("bench") / "evidence"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy")


def write(
    name: str, figures: dict, command: str, subjects: Iterable[str | Path], seconds: float, root: Path = ROOT
) -> Path:
    """Write one piece of evidence to bench/evidence/NAME.json and return its path.

    `subjects` are files inside the repository; `figures` is any JSON object; `seconds` is what the measurement took.
    Raises ValueError for a name that is not a plain file name or when there is no subject, FileNotFoundError
    for a subject that does not exist: evidence about nothing would stay valid for ever.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name):
        raise ValueError(f"evidence name {name!r}: use lower-case letters, digits, dots and dashes")
    hashes = {_relative(path, root): _digest(root / path) for path in subjects}
    if not hashes:
        raise ValueError(f"evidence {name}: name at least one subject file")
    record = {
        "name": name,
        "commit": commit(root),
        "dirty": is_dirty(root),
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "machine": machine(),
        "subjects": dict(sorted(hashes.items())),
        "figures": figures,
    }
    target = root / EVIDENCE / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, target)
    return target


def check(root: Path = ROOT) -> list[dict]:
    """Judge every evidence file: `{name, state: valid|stale|broken, why, commit, dirty, date, seconds}`."""
    return [_judge(path, root) for path in sorted((root / EVIDENCE).glob("*.json"))]


def finished(name: str, figure: str = "runs", root: Path = ROOT) -> list[dict]:
    """The runs that a piece of evidence rests on, each with its key; none where there is no such evidence. A long
    measurement goes on behind them on any machine: a run whose code or data has changed has another key."""
    path = root / EVIDENCE / f"{name}.json"
    runs: list[dict] = json.loads(path.read_text(encoding="utf-8"))["figures"][figure] if path.exists() else []
    return [run for run in runs if "key" in run]


def match(patterns: Iterable[str], root: Path = ROOT) -> tuple[list[str], list[str]]:
    """Find the files that glob patterns name: (the files, sorted; the patterns that name none)."""
    found = {pattern: [_relative(path, root) for path in root.glob(pattern) if path.is_file()] for pattern in patterns}
    return sorted({path for paths in found.values() for path in paths}), [p for p, paths in found.items() if not paths]


def fingerprint(paths: Iterable[str | Path], root: Path = ROOT) -> str:
    """Hash several files, names included, into one short key."""
    lines = (f"{_relative(path, root)} {_digest(root / path)}" for path in sorted(map(str, paths)))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def commit(root: Path = ROOT) -> str | None:
    """Name the commit checked out, or None where there is none yet."""
    return _git(root, "rev-parse", "--verify", "--quiet", "HEAD") or None


def is_dirty(root: Path = ROOT) -> bool:
    """Say whether files differ from the commit. Evidence itself does not count: it is written after the fact."""
    return bool(_git(root, "status", "--porcelain", "--", ".", f":(exclude){EVIDENCE.as_posix()}"))


def machine() -> dict:
    """Describe the hardware and the versions a figure depends on."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", info, re.MULTILINE)
    wide = {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx_vnni", "avx512_vnni"}
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "features": sorted(wide & set(flags[1].split())) if flags else [],
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def main(arguments: list[str] | None = None) -> int:
    """List the evidence; with --strict exit 1 when any of it no longer speaks for the files it names."""
    parser = argparse.ArgumentParser(prog="python -m bench.ledger", description=main.__doc__)
    parser.add_argument("--strict", action="store_true", help="exit 1 when evidence is stale or broken")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    verdicts = check()
    if options.json:
        print(json.dumps({"evidence": verdicts}))
    else:
        for verdict in verdicts:
            marks = " uncommitted" if verdict.get("dirty") else ""
            at = f"{(verdict.get('commit') or 'no commit')[:10]}{marks}, {(verdict.get('date') or '?')[:10]}"
            print(f"{verdict['state']:6} {verdict['name']:24} {at}  {verdict['why']}".rstrip())
        print(f"{len(verdicts)} evidence files, {sum(v['state'] != 'valid' for v in verdicts)} not valid")
    return int(options.strict and any(verdict["state"] != "valid" for verdict in verdicts))


def _judge(path: Path, root: Path) -> dict:
    """Compare the subjects of one evidence file with the files as they are now."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        subjects = dict(record["subjects"])
        known = {key: record[key] for key in ("commit", "dirty", "date", "seconds")}
    except (ValueError, KeyError, TypeError) as fault:
        return {"name": path.stem, "state": "broken", "why": f"not an evidence file: {fault!r}"}
    if not subjects:
        return {"name": path.stem, "state": "broken", "why": "names no subject", **known}
    gone = [name for name in subjects if not (root / name).is_file()]
    changed = [name for name in subjects if name not in gone and _digest(root / name) != subjects[name]]
    why = "; ".join(f"{verb}: {', '.join(names)}" for verb, names in (("changed", changed), ("gone", gone)) if names)
    return {"name": path.stem, "state": "stale" if why else "valid", "why": why, **known}


def _relative(path: str | Path, root: Path) -> str:
    return (root / path).resolve().relative_to(root.resolve()).as_posix()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _git(root: Path, *arguments: str) -> str:
    """Run git and return what it prints; empty where there is no git or it fails."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
