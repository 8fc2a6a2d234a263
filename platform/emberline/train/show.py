"""Progress of a run for a person: from its log's events, whether this process writes them or reads them."""

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from rich.console import Console

from emberline.recipe import METRICS
from emberline.runlog import RunLog
from emberline.train.view import Facts, View, view_on

_POLL_S = 0.2


class TrainingLog(RunLog):
    """The run's log, which rank 0 keeps, and shows where no launcher of ours does.

    Args:
        kept: whether this rank writes events.
        shown: whether events are also shown by this process.
    """

    def __init__(self, path: Path, *, kept: bool, shown: bool) -> None:
        super().__init__(path if kept else None, quiet=True)
        self._show = Show() if shown else None

    def event(self, name: str, **facts: Any) -> None:
        super().event(name, **facts)
        if self._show is not None:
            self._show({"time": time.time(), "event": name, **facts})


class Show:
    """Shows events as they come: how far the run is, and a line for what is worth one."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
        self._view: View | None = None
        self._shown = 0
        self._pace: Facts = {}  # of the last step
        self._facts: Facts = {"workers": 0, "restarts": 0, "lost": "0 s"}
        self._lost_s = 0.0

    def __call__(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "world":
            self._world(event)
        elif kind == "step":
            self._step(event)
        elif kind == "epoch":
            metric = next(name for name in METRICS.values() if name in event)
            self._facts[metric] = float(event[metric])
            self._refresh()
        elif (text := sentence(event)) is not None:
            self._say(text)
        if kind == "restart":
            self._facts["restarts"] = int(str(self._facts["restarts"])) + 1
            self._lost_s += float(event["seconds_lost"])
            self._facts["lost"] = f"{self._lost_s:.1f} s"

    def close(self) -> None:
        if self._view is not None:
            self._view.close()
        self._view = None

    def _world(self, event: dict[str, Any]) -> None:
        if self._view is None:
            self._view = view_on(self._console, event["total_steps"])
        pids = ", ".join(map(str, event["pids"]))
        self._say(
            f"generation {event['generation']}: {event['world_size']} workers (pid {pids}), "
            f"from step {event['step']} of {event['total_steps']}"
        )
        self._facts["workers"] = event["world_size"]

    def _step(self, event: dict[str, Any]) -> None:
        self._shown = max(self._shown, event["step"])
        pace = {"rows/s": float(event["samples_per_s"])} if "samples_per_s" in event else {}  # a late line has none
        self._pace = {"loss": float(event["loss"]), **pace}
        self._refresh()

    def _refresh(self) -> None:
        if self._view is not None:
            self._view(self._shown, {**self._pace, **self._facts})

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False)


def sentence(event: dict[str, Any]) -> str | None:
    """What a person is told of an event, if it is one line of its own."""
    text: str | None = None
    match event["event"]:
        case "say":
            text = str(event["text"])
        case "restart":
            text = (
                f"back after {event['seconds_lost']:.1f} s at step {event['step']} from the {event['source']}, "
                f"{event['steps_lost']} steps lost, {event['world_size']} workers"
            )
        case "worker_exit":
            text = f"worker of rank {event['rank']} (pid {event['pid']}) ended: {event['reason']}"
        case "hang" | "straggler" | "straggler_over":
            text = _standstill(event)
        case "sample":
            text = f"trains on a sample: the same {event['rows']} rows each time, {event['fraction']:g} of all"
        case "preempted":
            text = f"saved at step {event['step']}, {event['seconds_to_save']:.2f} s after the notice"
        case "overflow":
            text = f"step {event['step']}: gradients overflowed float16; left out, and the loss is scaled by half"
        case "early_stop":
            text = f"no improvement at epoch {event['epoch']}: back to the weights of epoch {event['best_epoch']}"
        case "snapshots" if event["every"] > 1:
            text = (
                f"a snapshot takes {event['write_ms']:.2g} ms and a step {event['step_ms']:.2g} ms: "
                f"one every {event['every']} steps, which a killed worker costs at most"
            )
    return text


def _standstill(event: dict[str, Any]) -> str:
    rank = f"rank {event['rank']}"
    if event["event"] == "straggler":
        ratio, ms = event["ratio"], event["ms_per_row"]
        return f"{rank} is slow: {ratio:.1f} times the others' median for a row ({ms:g} ms), and all wait for it"
    if event["event"] == "straggler_over":
        return f"{rank} is no longer slow: {event['ratio']:.1f} times the others' median"
    where = f"{event['phase']} of step {event['step']}, {event['seconds']:.1f} s without progress"
    at = f"; it was at {event['stack'][0]}" if event["stack"] else ""
    return f"{rank} (pid {event['pid']}) hangs in {where}: {event['why']}{at}; it is replaced"


class Follow:
    """Shows a log that other processes write, from where it ends now until this block is left."""

    def __init__(self, path: Path) -> None:
        self._path, self._show, self._ended = path, Show(), threading.Event()
        self._position = path.stat().st_size if path.is_file() else 0
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _: BaseException | None, _at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        self._read()
        self._show.close()

    def _run(self) -> None:
        while not self._ended.wait(_POLL_S):
            self._read()

    def _read(self) -> None:
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._position += len(whole)
        for line in whole.splitlines():
            self._show(orjson.loads(line))
