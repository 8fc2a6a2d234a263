"""The rendezvous store killed while two agents train, and a worker after it: does training go on by itself?

SIGKILL to the process that answers, then, once steps went on, to a worker, so that the agents must meet again at the
store that came back; in odd trials to the store's supervisor, which the launcher starts again.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import _agents
import _worlds
import psutil

TARGET = "survived in every trial, without a hand; the running world untouched"
TRIALS = 5


def trial(folder: Path, number: int) -> dict[str, Any]:
    _agents.endless(folder)
    run = folder / "runs" / "toy"
    if number % 2:
        command = [sys.executable, str(_agents.HERE / "_launcher.py"), "train", "toy.yaml", "--nproc-per-node", "2"]
        with _agents.started(command, folder) as launcher:
            before = _agents.wait_for_world(run, 0, 200)
            (answering,) = _answering(launcher.pid)
            return {"whom": "supervisor", **_kill(run, before, answering.parent(), launcher.pid)}
    with _agents.store(folder) as port:
        command = _agents.launcher(port)
        with _agents.started(command, folder), _agents.started(command, folder):
            before = _agents.wait_for_world(run, 0, 200, size=2)
            (answering,) = _answering(os.getpid())
            return {"whom": "answering", **_kill(run, before, answering, os.getpid())}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    survived = sum(one["survived"] for one in trials)
    untouched = sum(one["generation_after_store"] == one["generation"] for one in trials)
    return {
        "survived": survived, "untouched": untouched, "trials": len(trials),
        "reached": len(trials) >= TRIALS and survived == untouched == len(trials),
    }  # fmt: skip


def _kill(run: Path, before: dict[str, Any], store: psutil.Process, root: int) -> dict[str, Any]:
    at = _worlds.events(run, "step")[-1]["step"]
    store.kill()
    _agents.wait(lambda: [one for one in _answering(root) if one != store and one.parent() != store], 200, "the store")
    last = _worlds.events(run, "step")[-1]["step"]
    _agents.wait(lambda: _worlds.events(run, "step")[-1]["step"] > last + 100, 200, "steps after it")
    same = _agents.worlds(run)[-1]
    victim = same["pids"][-1]
    os.kill(victim, signal.SIGKILL)
    after = _agents.wait_for_world(run, same["generation"], 200)
    return {
        "store_pid": store.pid, "step": at, "generation": before["generation"],
        "generation_after_store": same["generation"], "worker_pid": victim,
        "generation_after_worker": after["generation"], "survived": after["generation"] > same["generation"],
    }  # fmt: skip


def _answering(root: int) -> list[psutil.Process]:
    """The processes that answer: forks of `emberline rendezvous`, with the same command line as their parent."""
    found = {}
    for one in psutil.Process(root).children(recursive=True):
        try:
            words = one.cmdline()
        except psutil.NoSuchProcess:
            continue
        if "rendezvous" in words and not any("keeper.py" in word for word in words):
            found[one] = words
    return [one for one in found if one.parent() in found]
