"""Real worlds of real workers without an agent: forked with torch loaded, killed and started again on command.

What an agent does is kept (SIGKILL to the rest when one dies, a new world under a new port), so that a schedule of
kills and resizes costs a second and not the start of a launcher. Workers are the product's own, `worker.work`.
"""

import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

MODULES = ["torch", "torch._dynamo", "emberline.train.worker"]


def context() -> Any:
    """Workers come from a server that has torch loaded, as the launcher's do."""
    multiprocessing.set_forkserver_preload(MODULES)
    return multiprocessing.get_context("forkserver")


@contextmanager
def world(
    recipe: Path, size: int, *, settings: tuple[str, ...] = (), mutant: str = "", environment: Mapping[str, str] = {}
) -> Iterator[list[BaseProcess]]:
    """The workers of one world; whoever is left at the end of the block is killed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workers = []
    for rank in range(size):
        variables = {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", **environment,
        }  # fmt: skip
        arguments = (str(recipe), settings, variables, mutant)
        workers.append(context().Process(target=_work, args=arguments, daemon=True))
    for one in workers:
        one.start()
    try:
        yield workers
    finally:
        end(workers)


def end(workers: list[BaseProcess]) -> None:
    for one in workers:
        one.kill()
    for one in workers:
        one.join()


def finish(workers: list[BaseProcess], timeout_s: float = 300.0) -> None:
    """Waits until all have ended well.

    Raises:
        RuntimeError: one did not.
    """
    deadline = time.monotonic() + timeout_s
    for one in workers:
        one.join(max(0.0, deadline - time.monotonic()))
    codes = [one.exitcode for one in workers]
    if any(codes):
        raise RuntimeError(f"workers ended with {codes}")


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    path = run / "log.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def wait_for_step(run: Path, workers: list[BaseProcess], generation: int, step: int, timeout_s: float = 120.0) -> int:
    """Waits until a generation is training and the log has `step`, or the workers are done; returns the last step."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        steps = events(run, "step")
        last = steps[-1]["step"] if steps else 0
        worlds = events(run, "world")
        if worlds and worlds[-1]["generation"] >= generation and last >= step:
            return last
        if all(one.exitcode is not None for one in workers):
            return last
        time.sleep(0.004)
    raise TimeoutError(f"{run}: step {step} of generation {generation} did not come")


def _work(recipe: str, settings: tuple[str, ...], variables: dict[str, str], mutant: str) -> None:
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folder = Path(recipe).parent
    os.chdir(folder)
    if mutant:
        _mutate(mutant)
    from emberline.train.worker import Order, work

    (folder / "failures").mkdir(exist_ok=True)
    launch = f"bench-{os.getppid()}"
    work(Order(Path(recipe).relative_to(folder), settings, Path("runs"), launch, folder / "failures"))


def _mutate(name: str) -> None:
    """Breaks, in this process alone, what a benchmark claims to notice."""
    from emberline.train import state, tree

    if name == "tree":  # the order of additions now depends on the number of workers
        size = int(os.environ["WORLD_SIZE"])

        def children(node: tree.Node) -> tuple[tree.Node, tree.Node]:
            low, high = node
            middle = low + max(1, (high - low) // (1 + size)) if high - low > 1 else low
            return (low, middle), (middle, high)

        tree.children = children
    elif name == "buffers":  # batch-norm statistics are not kept over a death
        kept = state.Learner.tensors
        state.Learner.tensors = lambda self: {  # type: ignore[method-assign]
            key: value * 0 if "running_mean" in key else value for key, value in kept(self).items()
        }
    elif name == "timed":  # breaks nothing: what snapshots take is written beside the recipe
        _time_snapshots()
    else:
        raise ValueError(f"no mutant {name!r}: tree, buffers, timed")


def _time_snapshots() -> None:
    from emberline.train import pace

    kept = pace.Snapshots.after_step
    spent = {"seconds": 0.0, "in_snapshots_s": 0.0, "written": 0, "state_mb": 0.0}
    begun = 0.0

    def after_step(self: pace.Snapshots, step: int, tensors: Any) -> None:
        nonlocal begun
        measured = self._measures
        started = time.monotonic()
        kept(self, step, tensors)
        ended = time.monotonic()
        if measured:  # the pace is not chosen yet
            begun = ended
            return
        spent["in_snapshots_s"] += ended - started
        spent["written"] += step % self._every == 0
        spent["seconds"] = ended - begun
        if step % 20 == 0:
            spent["state_mb"] = round(sum(t.numel() * t.element_size() for t in tensors().values()) / 1e6, 1)
            Path("timed.json").write_text(json.dumps(spent))

    pace.Snapshots.after_step = after_step  # type: ignore[method-assign]
