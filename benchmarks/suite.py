"""Runs the keys of one benchmark, trial after trial, and keeps every trial.

    python benchmarks/suite.py train                 all keys     (or: make bench-train)
    python benchmarks/suite.py train ONLY=hang       one key      (or: make bench-train ONLY=hang)
    python benchmarks/suite.py train FRESH=1         forgets the trials on record

A key is a module `benchmarks/<suite>/<key>.py`; `Key` says what it holds. A trial is written to
`benchmarks/results/<suite>.json` as soon as it ended: a run that was stopped goes on where it was. A key stops after
`LIMIT_S`, whatever is left to do.
"""

import fcntl
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, cast

from machine import describe_commit, describe_machine

HERE = Path(__file__).parent
RESULTS = HERE / "results"
LIMIT_S = 25 * 60

Facts = dict[str, Any]


class Key(Protocol):
    """What a key's module holds; its docstring's first line says what is measured."""

    __doc__: str | None
    TARGET: str  # in words
    TRIALS: int  # how many the summary needs

    def trial(self, folder: Path, number: int) -> Facts:
        """One trial in an empty folder of its own; peers interleaved within it. Raises when it could not be had."""

    def summary(self, trials: list[Facts]) -> Facts:
        """Medians and ratios of the trials, and `reached`: whether the target was."""


def keys(suite: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted((HERE / suite).glob("*.py")) if not path.stem.startswith("_")}


def load(path: Path) -> Key:
    for folder in (str(HERE), str(path.parent)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    specification = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses and pickles look their module up here
    specification.loader.exec_module(module)
    return cast("Key", module)


@contextmanager
def results(suite: str) -> Iterator[dict[str, Facts]]:
    """The suite's results; what the block changes is written, whole, while no other run of the suite can."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{suite}.json"
    with (RESULTS / f".{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        content: dict[str, Facts] = json.loads(path.read_text()) if path.exists() else {}
        yield content
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(dict(sorted(content.items())), indent=2, ensure_ascii=False) + "\n")
        fresh.replace(path)


def run(suite: str, name: str, *, fresh: bool) -> Facts:
    key = load(keys(suite)[name])
    with results(suite) as content:
        record = {} if fresh else content.get(name, {})
    trials: list[Facts] = record.get("trials", [])
    end = time.monotonic() + LIMIT_S
    while len(trials) < key.TRIALS and time.monotonic() < end:
        with tempfile.TemporaryDirectory(prefix=f"emberline-{name}-") as folder:
            facts = key.trial(Path(folder), len(trials))
        trials.append(facts)
        print(f"{suite} {name} {len(trials)}/{key.TRIALS}: {json.dumps(facts)[:300]}", flush=True)
        record = {
            "what": (key.__doc__ or "").strip().splitlines()[0],
            "target": key.TARGET,
            "summary": key.summary(trials),
            "command": f"make bench-{suite} ONLY={name}",
            "date": datetime.now(UTC).date().isoformat(),
            "commit": describe_commit(),
            "machine": describe_machine(),
            "load_average": os.getloadavg()[0],
            "complete": len(trials) >= key.TRIALS,
            "trials": trials,
        }
        with results(suite) as content:
            content[name] = record
    print(f"{suite} {name}: {json.dumps(record['summary'])}  (target: {record['target']})", flush=True)
    return record


def main(arguments: list[str]) -> int:
    suite, *rest = arguments
    options = dict(option.split("=", 1) for option in rest)
    known = keys(suite)
    only = options.get("ONLY")
    if only is not None and only not in known:
        print(f"error: {suite} has no key {only!r}\nhint: one of {', '.join(known)}", file=sys.stderr)
        return 2
    reached = True
    for name in [only] if only else known:
        try:
            record = run(suite, name, fresh=options.get("FRESH") == "1")
        except FileNotFoundError as missing:  # weights or a run of hours that the key reads; the others need neither
            print(f"error: {suite} {name}: {missing}", file=sys.stderr)
            reached = False
        else:
            reached = reached and record["complete"] and record["summary"]["reached"]
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
