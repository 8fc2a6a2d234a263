"""An agent killed with its workers, or alone: seconds to the survivors' next step, beside plain torchrun.

Two agents of one worker each share a store. Plain torchrun trains the same net under DistributedDataParallel, with its
default rendezvous settings and with tuned ones; there the agent is killed that does not serve the store, since nobody
survives the other's death. In the last trials the agent alone gets the signal, and its worker is left to notice; plain
torchrun may go on with that orphan, and is not waited for longer than `PATIENCE_S`.
`first_failure_s` is what a fresh agent needs for the first failure of its life (a worker's SIGKILL to the next step).

False evictions are counted in a trial's first minutes, in which processes that only compute load the machine; they are
gone before anything is killed.
"""

import json
import os
import signal
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import _agents
import _worlds
import psutil

from emberline.errors import StageFailed

TARGET = "6 times faster than plain torchrun's default, 3 times than tuned; no false eviction in 10 minutes at load 8"
WITH_WORKERS, ALONE = 5, 3
TRIALS = WITH_WORKERS + ALONE
PATIENCE_S = 120.0
CALM_S = 120.0  # of each trial with workers: ten minutes in five
BUSY = 8  # processes; with the workers, the load average of a minute passes 8


def trial(folder: Path, number: int) -> dict[str, Any]:
    alone = number >= WITH_WORKERS
    default = _plain(folder / "default", "", alone=alone)
    tuned = _plain(folder / "tuned", _agents.TUNED, alone=alone)
    return {"alone": alone, "plain_default": default, "plain_tuned": tuned, **_ours(folder / "ours", alone=alone)}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    whole, alone = ([one for one in trials if one["alone"] is kind] for kind in (False, True))
    middle = _medians(whole)
    calm = [one for one in trials if one["calm_s"]]
    evictions, least = sum(one["false_evictions"] for one in calm), min(one["load"] for one in calm)
    faster = (
        middle["emberline_s"] * 6 <= middle["plain_default_s"] and middle["emberline_s"] * 3 <= middle["plain_tuned_s"]
    )
    return {
        **middle, "agent_alone": _medians(alone) if alone else {},
        "agent_alone_never_noticed": [
            sum(one[side]["never"] for one in alone) for side in ("plain_default", "plain_tuned")
        ],
        "false_evictions": evictions, "calm_s": sum(one["calm_s"] for one in calm), "least_load": least,
        "first_failure_s": [one["first_failure_s"] for one in trials],
        "reached": len(trials) >= TRIALS and faster and evictions == 0 and least >= BUSY,
    }  # fmt: skip


def _medians(trials: list[dict[str, Any]]) -> dict[str, float]:
    sides = ("plain_default", "plain_tuned", "emberline")
    return {f"{side}_s": round(statistics.median(one[side]["seconds"] for one in trials), 2) for side in sides}


def _ours(folder: Path, *, alone: bool) -> dict[str, Any]:
    _agents.endless(folder)
    run = folder / "runs" / "toy"
    with _agents.store(folder) as port:
        command = _agents.launcher(port)
        with _agents.started(command, folder) as first, _agents.started(command, folder) as second:
            before = _agents.wait_for_world(run, 0, 300, size=2)
            os.kill(before["pids"][-1], signal.SIGKILL)
            killed = time.time()
            before = _agents.wait_for_world(run, before["generation"], 300, size=2)
            fresh_s = _first_step(run / "log.jsonl", before["time"]) - killed
            load = 0.0 if alone else _loaded(folder)
            calm = _agents.worlds(run)[-1]["generation"] - before["generation"]
            last = _agents.worlds(run)[-1]
            victim = second if psutil.Process(last["pids"][0]).pid in _family(first.pid) else first
            killed = _kill(victim.pid, alone=alone)
            after = _agents.wait_for_world(run, last["generation"], 300)
            seconds = _first_step(run / "log.jsonl", after["time"]) - killed
            lost = _worlds.events(run, "restart")[-1]["steps_lost"]
    return {
        "emberline": {
            "seconds": seconds, "pid": victim.pid, "step": after["step"], "steps_lost": lost,
            "generation": last["generation"], "generation_after": after["generation"],
        },
        "false_evictions": calm, "calm_s": 0.0 if alone else CALM_S, "load": load, "first_failure_s": round(fresh_s, 2),
    }  # fmt: skip


def _loaded(folder: Path) -> float:
    """`CALM_S` seconds of load, and the load average of their last minute."""
    with ExitStack() as busy:
        for number in range(BUSY):
            own = folder / f"busy-{number}"
            own.mkdir()
            busy.enter_context(_agents.started([sys.executable, "-c", "while True: pass"], own))
        time.sleep(CALM_S)
        return os.getloadavg()[0]


def _plain(folder: Path, conf: str, *, alone: bool) -> dict[str, Any]:
    _agents.endless(folder)
    log, port = folder / "plain.jsonl", _agents.process.free_port()

    def steps() -> list[dict[str, Any]]:
        return [json.loads(line) for line in log.read_bytes().split(b"\n")[:-1]] if log.exists() else []

    environment = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    hosting = f"{conf},is_host=1" if conf else "is_host=1"
    joining = f"{conf},is_host=0" if conf else "is_host=0"
    with (
        _agents.started(_agents.torchrun(port, hosting), folder, environment) as _,
        _agents.started(_agents.torchrun(port, joining), folder, environment) as second,
    ):
        _agents.wait(lambda: (now := steps()) and now[-1]["world_size"] == 2 and now[-1], 400, "plain: two agents")
        time.sleep(3)
        at = steps()[-1]
        killed = _kill(second.pid, alone=alone)
        never = False
        try:
            patience_s = PATIENCE_S if alone else 400
            _agents.wait(lambda: steps()[-1]["world_size"] == 1, patience_s, "plain: the survivor's step")
        except StageFailed:
            if not alone:
                raise
            never = True
        after = [one for one in steps() if one["world_size"] == 1 and one["time"] > killed]
    return {
        "seconds": after[0]["time"] - killed if after else PATIENCE_S, "pid": second.pid, "step": at["step"],
        "steps_lost": at["step"] - after[0]["step"] + 1 if after else 0, "never": never,
    }  # fmt: skip


def _kill(agent: int, *, alone: bool) -> float:
    at = time.time()
    if alone:
        os.kill(agent, signal.SIGKILL)
    else:
        _agents.signal_all(agent, signal.SIGKILL)
    return at


def _first_step(log: Path, after: float) -> float:
    events = [json.loads(line) for line in log.read_bytes().split(b"\n")[:-1]]
    return float(next(one["time"] for one in events if one["event"] == "step" and one["time"] > after))


def _family(pid: int) -> set[int]:
    return {one.pid for one in psutil.Process(pid).children(recursive=True)}
