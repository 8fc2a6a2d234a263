"""Kills one training worker on purpose, half-way, to show what that costs."""

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emberline.process import Child
from emberline.runlog import RunLog, read_events

_LOOK_EVERY_S = 0.2


def kill_worker_half_way(training: Child, events_path: Path, seen: int, epochs: int, log: RunLog) -> int | None:
    """Waits until half of the epochs are done, then SIGKILLs the last rank's process; returns the step it died in.

    Args:
        seen: how many events the run's log had before this training began; they are of an earlier try.

    Returns:
        None when training ended before half-way, as a reused run does.
    """
    while training.poll() is None:
        victim = choose_victim(read_events(events_path)[seen:], epochs)
        if victim is not None:
            pid, step = victim
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                log.say(f"demo: killed worker pid {pid} with SIGKILL at step {step}, on purpose", pid=pid, step=step)
                return step
        time.sleep(_LOOK_EVERY_S)
    return None


def choose_victim(events: Sequence[dict[str, Any]], epochs: int) -> tuple[int, int] | None:
    """Pid of the last rank and the step it is in, once half of the epochs are done. Pure."""
    worlds = [event for event in events if event["event"] == "world"]
    steps = [event for event in events if event["event"] == "step"]
    if not worlds or not steps or steps[-1]["epoch"] < epochs // 2:
        return None
    return int(worlds[-1]["pids"][-1]), int(steps[-1]["step"])
