"""`emberline train`: torchrun's agent and rendezvous with our workers, and the line that does the same by torchrun."""

import logging
import multiprocessing
import os
import shlex
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any, NoReturn

from emberline.errors import EmberlineError, InvalidOption, InvalidSetting
from emberline.recipe import Recipe, load_recipe
from emberline.runlog import RunLog, read_events
from emberline.train.failure import read_failure
from emberline.train.folder import LOG, finished_manifest
from emberline.train.local_store import LocalStore
from emberline.train.notice import Interrupted, Notice
from emberline.train.occupancy import occupy
from emberline.train.preemption import PREEMPTED
from emberline.train.show import Follow
from emberline.train.tracking import Tracking, require_trackers

_LOCAL_HOST = "127.0.0.1"
_MONITOR_S = 0.1
# the store is a process of its own; a lost node is noticed in seconds, not in torchrun's default minute
_RDZV_CONF = {"keep_alive_interval": "1", "keep_alive_max_attempt": "5", "last_call_timeout": "3"}
_LATER_LAST_CALL = "1"  # of worlds after the first, when all nodes are up already


@dataclass(frozen=True)
class Launch:
    """Options of `emberline train`; those that torchrun has mean what they mean there."""

    recipe: Path
    settings: tuple[str, ...] = ()
    runs: Path = Path("runs")
    nnodes: str = "1:1"
    nproc_per_node: str = "2"
    rdzv_backend: str = "c10d"
    rdzv_endpoint: str = ""
    rdzv_id: str = ""
    rdzv_conf: str = ""
    max_restarts: int | None = None


def launch(options: Launch, notice: Notice) -> int:
    """Trains the recipe, or says that it was trained before.

    Args:
        notice: listens already.

    Returns:
        0 when the run is done, 75 when it was saved after SIGTERM, 130 after Ctrl-C.

    Raises:
        EmberlineError: settings cannot be used, the run belongs to another recipe, or training failed.
    """
    recipe = load_recipe(options.recipe, options.settings)
    path = options.runs / recipe.run
    counts(options, recipe)  # what cannot be used is refused before anything starts, or is found to be done
    parse_conf(options.rdzv_conf)
    if (manifest := finished_manifest(path, recipe)) is not None:
        facts = manifest.facts
        print(f"{path}: trained before ({facts['steps']} steps, {measured(facts)}); reused")
        return 0
    require_trackers(recipe.train.track)
    run_id = options.rdzv_id or f"{recipe.run}-{uuid.uuid4().hex[:8]}"
    try:
        with occupy(path, run_id, options.rdzv_endpoint):
            print(f"the same by torchrun: {torchrun_line(options, recipe, run_id)}", file=sys.stderr)
            _train(options, recipe, run_id, notice)
    except Interrupted as signalled:
        print(f"stopped; what was done is saved in {path}, and the same command goes on from there", file=sys.stderr)
        return 130 if signalled.number == signal.SIGINT else PREEMPTED
    _print_summary(path)
    return 0


def _train(options: Launch, recipe: Recipe, run_id: str, notice: Notice) -> None:
    endpoint, given = options.rdzv_endpoint, parse_conf(options.rdzv_conf)
    conf = {"later_last_call_timeout": given.get("last_call_timeout", _LATER_LAST_CALL), **_RDZV_CONF, **given}
    _warm_up(recipe)
    with ExitStack() as stack:
        if not endpoint:
            endpoint = stack.enter_context(LocalStore(meanwhile=_load_torch)).endpoint
            conf.setdefault("is_host", "0")
        failures = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emberline-")))
        _run_agent(options, recipe, notice, endpoint=endpoint, run_id=run_id, conf=conf, failures=failures)
        if (error := read_failure(failures)) is not None:
            raise error


def torchrun_line(options: Launch, recipe: Recipe, run_id: str) -> str:
    """The command that trains the same run without our launcher: no warm start, otherwise alike."""
    endpoint = options.rdzv_endpoint or "localhost:0"  # port 0: torchrun's agent serves the store itself
    words = ["torchrun", f"--nnodes={options.nnodes}", f"--nproc-per-node={options.nproc_per_node}"]
    words += [f"--rdzv-backend={options.rdzv_backend}", f"--rdzv-endpoint={endpoint}", f"--rdzv-id={run_id}"]
    # torchrun's own default has every start of an elastic world wait for half a minute
    conf = {"last_call_timeout": _RDZV_CONF["last_call_timeout"], **parse_conf(options.rdzv_conf)}
    words += [f"--rdzv-conf={','.join(f'{key}={value}' for key, value in conf.items())}"]
    words += [f"--max-restarts={_max_restarts(options, recipe)}", "-m", "emberline.train.worker", str(options.recipe)]
    words += ["--runs", str(options.runs)]
    for setting in options.settings:
        words += ["--set", setting]
    # with the store shared, workers of the next round would read the addresses of the last one
    return f"TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 {shlex.join(words)}"


def parse_conf(text: str) -> dict[str, str]:
    """`key=value,…` as torchrun's `--rdzv-conf` takes it."""
    pairs = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise InvalidOption(
                "train", "--rdzv-conf", pair, "key=value", hint="such as join_timeout=60,last_call_timeout=5"
            )
        pairs[key.strip()] = value.strip()
    return pairs


def _max_restarts(options: Launch, recipe: Recipe) -> int:
    return recipe.train.max_restarts if options.max_restarts is None else options.max_restarts


def _warm_up(recipe: Recipe) -> None:
    """Starts the server that workers are forked from; it loads torch while this process and the store do too."""
    # with the store shared, workers of the next round would read the addresses of the last one
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", str(recipe.train.threads))
    # torch._dynamo: every optimizer imports it at its first step, which costs as much as torch itself
    multiprocessing.set_forkserver_preload(
        ["__main__", "torch", "torch._dynamo", "emberline.train.worker", *_modules_of(recipe)]
        + (["emberline.train.sharded", "emberline.train.dcp"] if recipe.train.strategy == "fsdp2" else [])
    )
    _start_tracker()  # first: it would lift the block that comes now
    # a SIGTERM to the whole process group must not end the server: its end kills the workers, who are about to save
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # inherited; a worker that listens lifts it
    try:
        forkserver.ensure_running()
    except OSError as error:  # it listens on a socket there, whose path may have 107 characters
        place, hint = tempfile.gettempdir(), "set TMPDIR to a folder with a shorter path"
        raise EmberlineError(f"no socket can be made among temporary files: {error}", place=place, hint=hint) from error
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    # only for this process: a connection that breaks is dealt with, and needs no pages about it on standard error
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")


def _start_tracker() -> None:
    """Starts Python's cleaner of semaphores, which has nothing to tell a user of what a killed process left to it."""
    before = os.environ.get("PYTHONWARNINGS")
    quiet = "ignore:resource_tracker:UserWarning:multiprocessing.resource_tracker"
    os.environ["PYTHONWARNINGS"] = f"{before},{quiet}" if before else quiet
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def _load_torch() -> None:
    import torch.distributed.run  # noqa: F401 - loaded for its effect


def _run_agent(
    options: Launch, recipe: Recipe, notice: Notice, *,
    endpoint: str, run_id: str, conf: Mapping[str, str], failures: Path,
) -> None:  # fmt: skip
    from torch.distributed.elastic.agent.server.api import WorkerSpec
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.rendezvous import RendezvousClosedError

    from emberline.train.agent import WarmAgent
    from emberline.train.hang import Hang, watch_of
    from emberline.train.membership import make_rendezvous
    from emberline.train.pulse import Board
    from emberline.train.stack import stack_of
    from emberline.train.worker import Order, work

    nodes, workers = counts(options, recipe)
    _quiet_elastic_logs()
    local_addr = _LOCAL_HOST if nodes == (1, 1) else None
    handler = make_rendezvous(options.rdzv_backend, endpoint, run_id, nodes, local_addr=local_addr, conf=conf)
    launch_id = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}" if nodes == (1, 1) else run_id
    board = Board(workers)
    order = Order(options.recipe, options.settings, options.runs, launch_id, failures, board.path)
    log_path = options.runs / recipe.run / LOG

    def tell(event: str, **facts: object) -> None:
        if log_path.is_file():
            RunLog(log_path, quiet=True).event(event, **facts)

    def on_exit(rank: int, pid: int, reason: str) -> None:
        tell("worker_exit", rank=rank, pid=pid, reason=reason)

    def on_lost(nodes: list[str]) -> None:
        tell("lost_members", agent=os.getpid(), nodes=nodes)

    def on_hang(rank: int, hang: Hang) -> None:
        tell("hang", rank=rank, host=socket.gethostname(), **asdict(hang), stack=stack_of(hang.pid))

    spec = WorkerSpec(
        "train", workers, handler, entrypoint=work, args=(order,), local_addr=local_addr,
        max_restarts=_max_restarts(options, recipe), monitor_interval=_MONITOR_S,
    )  # fmt: skip
    watch = watch_of(recipe.train.hang_after_s, board)
    agent = WarmAgent(
        spec, failures=failures, notice=notice, on_exit=on_exit, on_lost=on_lost, on_hang=on_hang, watch=watch
    )
    close = True
    try:
        with closing(board), Follow(log_path), Tracking(log_path.parent, recipe, recipe.train.track):
            notice.check()
            result = agent.run()
    except SignalException as signalled:
        close = not options.rdzv_endpoint  # closing a shared rendezvous would end it for the other nodes too
        raise Interrupted(signalled.sigval) from signalled
    except RendezvousClosedError as error:
        _come_too_late(options, recipe, f"{endpoint}, id {run_id}", error)
        return
    finally:
        if close:
            handler.shutdown()
    if result.is_failed() and read_failure(failures) is None:
        _raise_failed(result.failures, log_path)


def _come_too_late(options: Launch, recipe: Recipe, place: str, error: Exception) -> None:
    """The other nodes were done when this one joined, as happens to the successor of a pod: well where the run is."""
    if finished_manifest(options.runs / recipe.run, recipe) is None:
        hint = "start all nodes again, with another --rdzv-id; training goes on from the last saved state"
        raise EmberlineError("this rendezvous was closed by nodes that have ended", place=place, hint=hint) from error


def _raise_failed(failures: Mapping[int, object], log_path: Path) -> NoReturn:
    from emberline.train.agent import exit_reason

    rank, failure = next(iter(failures.items()))
    reason = exit_reason(getattr(failure, "exitcode", 1))
    hint = f"its messages are above; the steps done are saved in {log_path.parent}, and the same command goes on"
    raise EmberlineError(f"workers failed again and again; the last: {reason}", place=f"rank {rank}", hint=hint)


def counts(options: Launch, recipe: Recipe) -> tuple[tuple[int, int], int]:
    """Least and most nodes, and workers of each.

    Raises:
        InvalidOption: they are no numbers.
        InvalidSetting: there are more workers than there are virtual shards.
    """
    parts = options.nnodes.split(":")
    numbers = [int(one) for one in parts if one.isdecimal()]
    least, most = (numbers[0], numbers[-1]) if len(numbers) == len(parts) <= 2 else (0, 0)  # noqa: PLR2004 - MIN:MAX
    if not 0 < least <= most:
        hint = "1:1 is one node; 1:4 goes on with as many as are up"
        raise InvalidOption("train", "--nnodes", options.nnodes, "N or MIN:MAX with 0 < MIN <= MAX", hint=hint)
    workers = _workers(options.nproc_per_node)
    by_shards = recipe.train.strategy == "replicate" and recipe.train.reduce == "virtual"
    if by_shards and most * workers > recipe.train.virtual_shards:
        raise InvalidSetting(
            options.recipe, "workers", most * workers, f"at most train.virtual_shards, {recipe.train.virtual_shards},",
            hint="start fewer workers, or a new run with more virtual shards",
        )  # fmt: skip
    return (least, most), workers


def _workers(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    if text not in {"auto", "cpu", "gpu"}:
        hint = "auto takes as many as there are GPUs, or else cores"
        raise InvalidOption("train", "--nproc-per-node", text, "1 or more, auto, cpu or gpu", hint=hint)
    from torch.distributed.run import determine_local_world_size  # torchrun knows what they mean

    try:
        return int(determine_local_world_size(text))
    except (ValueError, RuntimeError) as error:  # no GPU
        raise InvalidOption("train", "--nproc-per-node", text, "a number", hint=str(error)) from error


def _modules_of(recipe: Recipe) -> list[str]:
    """Emberline's own modules that the recipe names; a user's own are loaded by each worker, where errors are told."""
    references = [recipe.model.factory, recipe.data.source, recipe.train.loss]
    return [name for name in (one.partition(":")[0] for one in references) if name.startswith("emberline.")]


def _quiet_elastic_logs() -> None:
    """What the agent reports as tracebacks is told in one line each, from its results."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    # workers that lost another one are ended on purpose; that one could not be ended is still told
    logging.getLogger("torch.multiprocessing.spawn").addFilter(_not_on_purpose)


def _not_on_purpose(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Terminating process")


def measured(facts: Mapping[str, Any]) -> str:
    """The metric of a finished run, in words."""
    metric = facts.get("metric", "accuracy")
    return f"{metric} {facts[metric]:.4f}"


def _print_summary(path: Path) -> None:
    done = [event for event in read_events(path / LOG) if event["event"] == "done"]
    if not done:
        raise EmberlineError("the workers ended without finishing the run", place=path)
    one = done[-1]
    print(
        f"{path}: {one['steps']} steps in {one['seconds']:.1f} s, loss {one['loss']:.4f}, "
        f"validation {measured(one)}; restarts {one['restarts']}, "
        f"seconds lost {_lost(one['lost_s'])}, steps lost {one['steps_lost']}, goodput {one['goodput']:.3f}"
    )
    print(f"artifact: {path / 'artifacts' / 'trained'}")


def _lost(seconds: Sequence[float], shown: int = 5) -> str:
    """The sum, and each restart's share; of many the longest."""
    if len(seconds) <= 1:
        return f"{sum(seconds):.1f}"
    each = ", ".join(f"{one:.1f}" for one in sorted(seconds, reverse=True)[:shown])
    return f"{sum(seconds):.1f} ({each}{', …' if len(seconds) > shown else ''})"
