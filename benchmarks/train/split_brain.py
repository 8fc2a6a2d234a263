"""Agents stopped with their workers until the others gave them up, then let go on: does an old world ever commit?

A trial is twenty stops of one of two agents, whose worlds save without a pause. Every checkpoint that appears is held
against the worlds in the log: one that was put into its place after a newer generation's world had begun, by an older
generation, is a double commit. A stop counts only with a newer generation on record and the agent's pid.

The mutant must turn it red, when a stop hits a world between writing and renaming:

    EMBERLINE_BENCH_MUTANT=fence python benchmarks/suite.py train ONLY=split_brain FRESH=1
"""

import json
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import _agents
import _worlds

TARGET = "0 double commits in 200 stops"
TRIALS = 10
STOPS = 20  # of a trial
_LIMIT_S = 1200.0  # for the stops of a trial; those done by then are kept
_CONF = "is_host=0,keep_alive_interval=1,keep_alive_max_attempt=2,last_call_timeout=1"


class Watch(threading.Thread):
    """Every checkpoint that was ever in its place: generation, and when it came there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.seen: dict[tuple[str, int], tuple[int, float]] = {}
        self.ended = threading.Event()
        self._folder = folder

    def run(self) -> None:
        while not self.ended.wait(0.01):
            for path in self._folder.glob("step-*"):
                try:
                    status = path.stat()
                    if (path.name, status.st_ino) not in self.seen:
                        generation = json.loads((path / "manifest.json").read_bytes())["facts"]["generation"]
                        self.seen[path.name, status.st_ino] = (generation, status.st_ctime)
                except (FileNotFoundError, NotADirectoryError):
                    continue


def trial(folder: Path, number: int) -> dict[str, Any]:
    _agents.endless(folder)
    run, chance = folder / "runs" / "toy", random.Random(number)
    settings = ("train.checkpoint_every_s=0.001",)
    environment = {"EMBERLINE_BENCH_SAVES": "always"}
    stops: list[dict[str, Any]] = []
    watch = Watch(run / "checkpoints")
    with _agents.store(folder) as port:
        command = _agents.launcher(port, *settings, conf=_CONF)
        with (
            _agents.started(command, folder, environment) as first,
            _agents.started(command, folder, environment) as second,
        ):
            _agents.wait_for_world(run, 0, 300, size=2)
            watch.start()
            end = time.monotonic() + _LIMIT_S
            while len(stops) < STOPS and time.monotonic() < end:
                stops.append(_stop(run, chance.choice((first.pid, second.pid)), chance))
            watch.ended.set()
            watch.join()
    worlds = _agents.worlds(run)
    doubles = [
        {"checkpoint": name, "generation": generation, "overtaken_by": one["generation"]}
        for (name, _), (generation, at) in watch.seen.items()
        for one in worlds
        if one["generation"] > generation and one["time"] < at - 0.005
    ]
    return {"stops": stops, "commits": len(watch.seen), "double_commits": doubles}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    stops = [one for trial in trials for one in trial["stops"] if one["generation_after"] > one["generation"]]
    doubles = sum(len(trial["double_commits"]) for trial in trials)
    commits = sum(trial["commits"] for trial in trials)
    return {
        "trials": len(stops), "commits": commits, "double_commits": doubles,
        "reached": len(stops) >= TRIALS * STOPS and doubles == 0,
    }  # fmt: skip


def _stop(run: Path, agent: int, chance: random.Random) -> dict[str, Any]:
    before = _agents.worlds(run)[-1]
    time.sleep(chance.uniform(0, 0.5))
    _agents.signal_all(agent, signal.SIGSTOP)
    after = _agents.wait_for_world(run, before["generation"], 300)
    step = _worlds.events(run, "step")[-1]["step"]
    _agents.signal_all(agent, signal.SIGCONT)
    _agents.wait_for_world(run, after["generation"], 300, size=2)
    return {"pid": agent, "step": step, "generation": before["generation"], "generation_after": after["generation"]}
