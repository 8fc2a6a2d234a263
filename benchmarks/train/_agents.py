"""Real launchers on one machine that share a rendezvous store, and the same training under plain torchrun."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import _toy
import _worlds
import psutil

from emberline import process

HERE = Path(__file__).parent
TUNED = "keep_alive_interval=1,keep_alive_max_attempt=5,last_call_timeout=3"

# the same net under DistributedDataParallel, as torchrun's own examples are written: a file of the state now and then
PLAIN = """
import json, os, sys, time, torch, torch.distributed as dist
from pathlib import Path
from torch import nn
from benchtoy import net, data
torch.set_num_threads(1)
dist.init_process_group("gloo")
torch.manual_seed(3)
model = net()
ddp = nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
saved, log, step = Path("plain.pt"), Path("plain.jsonl"), 0
if saved.exists():
    kept = torch.load(saved, weights_only=True)
    model.load_state_dict(kept["model"]); optimizer.load_state_dict(kept["optimizer"]); step = kept["step"]
rows = 24 // dist.get_world_size()
while True:
    inputs, labels = torch.randn(rows, 6), torch.randint(0, 3, (rows,))
    optimizer.zero_grad()
    nn.functional.cross_entropy(ddp(inputs), labels).backward()
    optimizer.step()
    step += 1
    if dist.get_rank() == 0:
        with log.open("a") as file:
            file.write(json.dumps({"time": time.time(), "event": "step", "step": step,
                                   "world_size": dist.get_world_size(), "pid": os.getpid()}) + chr(10))
        if step % 50 == 0:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, "new.pt")
            os.replace("new.pt", saved)
    time.sleep(0.01)
"""


def endless(folder: Path) -> Path:
    """The toy without an end, under a recipe of its own."""
    recipe = _toy.make(folder)
    lines = [line for line in recipe.read_text().splitlines() if "early_stopping" not in line]
    text = "\n".join(lines).replace("epochs: 4", "epochs: 1000000").replace("schedule: cosine", "schedule: constant")
    recipe.write_text(text + "\n")
    (folder / "plain.py").write_text(PLAIN)
    return recipe


@contextmanager
def started(
    command: list[str], folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with all it starts; nothing of it is left in the end."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    variables = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **(environment or {})}
    with (folder / "output.txt").open("ab") as output:
        child = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield child
    finally:
        end(child)


def end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        for one in [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
    child.wait()


@contextmanager
def store(folder: Path) -> Iterator[int]:
    """`emberline rendezvous`; gives its port."""
    port = process.free_port()
    command = [sys.executable, "-m", "emberline.cli", "rendezvous", "--port", str(port)]
    with started(command, folder):
        yield port


def launcher(port: int, *settings: str, conf: str = "is_host=0") -> list[str]:
    words = [sys.executable, str(HERE / "_launcher.py"), "train", "toy.yaml", "--nnodes", "1:2"]
    words += ["--nproc-per-node", "1", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "bench"]
    for setting in settings:
        words += ["--set", setting]
    return [*words, "--rdzv-conf", conf, "--max-restarts", "1000"]


def torchrun(port: int, conf: str) -> list[str]:
    words = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1"]
    words += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=plain", "--max-restarts=100"]
    return [*words, *([f"--rdzv-conf={conf}"] if conf else []), "plain.py"]


def wait(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    return process.wait_until(condition, timeout_s, what, every_s=0.02)


def worlds(run: Path) -> list[dict[str, Any]]:
    return _worlds.events(run, "world")


def wait_for_world(run: Path, after: int, timeout_s: float, size: int | None = None) -> dict[str, Any]:
    """The first world of a generation after `after`, of `size` workers where one is asked for, that has done a step."""

    def there() -> dict[str, Any] | None:
        found = [one for one in worlds(run) if one["generation"] > after and size in {None, one["world_size"]}]
        steps = _worlds.events(run, "step")
        done = found and steps and steps[-1]["time"] > found[-1]["time"]
        return found[-1] if done else None

    return dict(wait(there, timeout_s, f"a world after generation {after}"))


def signal_all(root: int, number: signal.Signals) -> None:
    """To a process and all it started, children first."""
    try:
        family = [*psutil.Process(root).children(recursive=True), psutil.Process(root)]
    except psutil.NoSuchProcess:
        return
    for one in family:
        try:
            one.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def now() -> float:
    return time.time()
