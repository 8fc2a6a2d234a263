"""One worker, as an agent starts it: ours as a function, torchrun's own as a program.

    torchrun --nnodes=1:4 --nproc-per-node=2 --rdzv-backend=c10d … -m emberline.train.worker RECIPE

Exit codes: 0 done, 1 a failure that another try would meet again, 3 another worker was lost (its own line says why),
75 saved after a preemption notice.
"""

import argparse
import ctypes
import errno
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import NoReturn, TypeVar

import psutil
import torch

from emberline.data import Rows, Splits, load_checked
from emberline.data.identity import identity_of
from emberline.errors import EmberlineError
from emberline.models import create
from emberline.recipe import Recipe, Train, load_recipe
from emberline.runlog import RunLog, read_events
from emberline.train import snapshot
from emberline.train.batches import check_rows, num_units
from emberline.train.checkpoint import Checkpoints
from emberline.train.determinism import make_deterministic
from emberline.train.evaluate import judge_of
from emberline.train.failure import write_failure
from emberline.train.finish import finish
from emberline.train.fitting import budget_of_worker, choose, read_choice, settled, write_choice
from emberline.train.folder import RunFolder, finished_manifest, prepare_folder
from emberline.train.gradients import Job
from emberline.train.keeping import Keeping
from emberline.train.keeping_together import KeepingTogether
from emberline.train.litter import sweep_semaphores
from emberline.train.loop import Training, train
from emberline.train.making import make_gradients, make_job, make_learner, place_model
from emberline.train.occupancy import occupy
from emberline.train.preemption import PEER_LOST, PREEMPTED, Preempted, Preemption
from emberline.train.pulse import Phase, Pulse
from emberline.train.resume import Resumed, resume, resume_together
from emberline.train.show import TrainingLog
from emberline.train.straggler import Stragglers
from emberline.train.summary import Event, data_identity, last_step, restart_facts, since_anew
from emberline.train.teaching import teacher_digest
from emberline.train.tracking import Tracking, require_trackers
from emberline.train.world import TIMEOUT, PeerLost, World, join_world, leave_world

T = TypeVar("T")
_PR_SET_PDEATHSIG = 1
_NOTICE_S = 0.5  # after a peer was lost: it may have had the notice that is on its way to this process too
_FULL_OR_READ_ONLY = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}
_held = ExitStack()  # until this process ends


@dataclass(frozen=True)
class Order:
    """What a worker is to do.

    Attributes:
        launch: names one start of the launcher, to tell a restart from a later start; torchrun's agent is told by pid.
        failures: folder for a clear account of a failure, for our launcher to show; others read standard error.
        board: where our agent reads what its workers are at; other agents do not.
    """

    recipe: Path
    settings: tuple[str, ...] = ()
    runs: Path = Path("runs")
    launch: str = ""
    failures: Path | None = None
    board: Path | None = None


def main() -> None:
    """`python -m emberline.train.worker`, under torchrun."""
    parser = argparse.ArgumentParser(prog="emberline.train.worker", description="One worker of a training run.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    launch = f"{socket.gethostname()}-{os.getppid()}"
    work(Order(options.recipe, tuple(options.settings), options.runs, launch))


def work(order: Order) -> None:
    """Trains until the end, a notice or a failure; returns only when the run is done, else exits with its code."""
    end_with_parent()
    preemption = Preemption(_leave)
    preemption.listen()
    try:
        _train(order, preemption)
    except PeerLost as error:
        preemption.hold(_NOTICE_S)
        if order.failures is None:  # our own agent tells who it was
            print(f"rank {os.environ.get('RANK', '0')}: another worker was lost: {error}", file=sys.stderr)
        _leave(PEER_LOST)
    except Preempted:
        _leave(PREEMPTED)
    except Exception as error:  # noqa: BLE001 - told; the process ends at once, since peers may hang in a collective
        preemption.hold()
        _fail(order, error)
    preemption.ignore()
    _held.close()
    leave_world()


def _fail(order: Order, error: Exception) -> NoReturn:
    """Tells a failure and ends this process; a clear one would come again, so nobody is to try."""
    if isinstance(error, OSError) and error.errno in _FULL_OR_READ_ONLY:
        hint = f"free some space or repair {order.runs}, then start again: training goes on from the last saved state"
        error = EmberlineError(f"cannot be written: {error}", place=order.runs, hint=hint)
    if isinstance(error, EmberlineError):
        write_failure(order.failures, error)
        stop_torchrun()
    else:
        traceback.print_exception(error)
    _leave(1)


def stop_torchrun() -> None:
    """Asks torchrun's agent, where it is one that started this worker, to end instead of trying again.

    It has no exit code for that. Told by SIGTERM, it passes that on, so the other workers save their state.
    """
    tried = os.environ.get("TORCHELASTIC_RESTART_COUNT") == os.environ.get("TORCHELASTIC_MAX_RESTARTS")
    if multiprocessing.parent_process() is not None or tried:  # our own agent, or one that ends by itself
        return
    agent = psutil.Process(os.getppid())
    if any("torchrun" in word or "torch.distributed.run" in word for word in agent.cmdline()):
        print("another try would fail alike; torchrun is told to end", file=sys.stderr, flush=True)
        agent.terminate()


def end_with_parent() -> None:
    """Sees to it that this worker is killed when its agent dies.

    Under torchrun the agent is the parent, and the kernel does it. Our agent's workers are forked by a server that
    lives as long as they do, so a thread of theirs waits for the agent's end too.
    """
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was asked
        _leave(1)
    if (agent := multiprocessing.parent_process()) is not None:
        Thread(target=_die_after, args=(agent.sentinel,), name="agent's end", daemon=True).start()


def _die_after(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def _train(order: Order, preemption: Preemption) -> None:
    pulse = Pulse(order.board, int(os.environ.get("LOCAL_RANK", "0")))
    recipe, search = load_recipe(order.recipe, order.settings), order.recipe.parent
    make_deterministic(recipe.train.threads)
    splits = load_checked(recipe, search)
    if not (order.runs / recipe.run).exists():  # later starts need not look again
        check_rows(splits, recipe)
    torch.manual_seed(recipe.seed)
    model = create(recipe.model, search)
    world = join_world(pulse)
    path = order.runs / recipe.run
    if order.failures is None and world.rank == 0:  # under torchrun; our own launcher does these itself
        _held.enter_context(occupy(path, os.environ.get("TORCHELASTIC_RUN_ID", "")))
        require_trackers(recipe.train.track)
        _held.enter_context(Tracking(path, recipe, recipe.train.track))
    if world.gather(world.rank == 0 and finished_manifest(path, recipe) is not None)[0]:
        if world.rank == 0:
            print(f"{path}: this training has ended before; its result is reused", file=sys.stderr)
        return
    run = _one_for_all(
        world, prepare_folder(path, recipe, len(splits.train), teacher_digest(recipe)) if world.rank == 0 else None
    )
    checkpoints = Checkpoints(
        path, digest=run.digest, keep=recipe.train.keep_checkpoints, location=recipe.train.checkpoints_of(recipe.run)
    )
    generation = _one_for_all(world, checkpoints.claim_generation() if world.rank == 0 else None)
    pulse.joined(generation)
    log = TrainingLog(run.log, shown=world.rank == 0 and order.failures is None, kept=world.rank == 0)
    _tell_start(order, recipe, run, log, rows=len(splits.train))
    settle = partial(_settled, order, recipe, splits, run, generation=generation, log=log)
    settings = _one_for_all(world, settle() if world.rank == 0 else None)
    exact = recipe.model_copy(update={"train": settings})
    job = make_job(exact, search, splits, place_model(settings, model, world), world)
    learner = make_learner(exact, job)
    if world.rank == 0:
        checkpoints.sweep()
        snapshot.sweep()
    together = settings.strategy == "fsdp2"
    resumed = resume_together(checkpoints, learner, world) if together else resume(run, checkpoints, learner, world)
    restart = _tell_world(
        log, job, resumed, generation, order.launch,
        run=run, rows=splits.train, loss=float(learner.progress["loss"]),
    )  # fmt: skip
    kept: Callable[..., Keeping | KeepingTogether] = (
        partial(KeepingTogether, preemption) if together else partial(Keeping, run)
    )
    keeping = kept(
        checkpoints, learner, world,
        log=log, generation=generation, settings=settings, seed=recipe.seed, done=resumed.step, restart=restart,
    )  # fmt: skip
    training = Training(
        job, settings, learner, make_gradients(exact, job), keeping, preemption,
        splits.validation, judge_of(recipe), log, Stragglers(world, log),
    )  # fmt: skip
    _take_notices(order, training)
    try:
        steps = train(training, resumed.step)
    except PeerLost:
        keeping.remember()
        raise
    with preemption.moving(), pulse.during(Phase.SAVING):
        keeping.checkpoint(steps, why="end")
    with pulse.during(Phase.SAVING):
        finish(run, recipe, training, generation, steps)
    if world.rank == 0:
        sweep_semaphores()  # here, where nobody waits for it


def _take_notices(order: Order, training: Training) -> None:
    """From now on a notice saves the state: at once, or with the others where each has a part of it."""
    if isinstance(training.keeping, Keeping):
        training.preemption.saves(partial(_hand_over, order, training, training.keeping))
    else:
        training.preemption.defers()


def _hand_over(order: Order, training: Training, keeping: Keeping, asked_at: float) -> int:
    """Saves the state at a notice, in a thread of its own; returns the exit code."""
    training.job.world.pulse.stay(Phase.SAVING)
    try:
        keeping.hand_over()
    except EmberlineError as error:
        write_failure(order.failures, error)
        return 1
    seconds = round(time.monotonic() - asked_at, 3)
    training.log.event("preempted", step=keeping.done, seconds_to_save=seconds)
    return PREEMPTED


def _settled(order: Order, recipe: Recipe, splits: Splits, run: RunFolder, *, generation: int, log: RunLog) -> Train:
    """The settings that this run goes by: what they leave open was chosen at its first start. For rank 0."""
    if recipe.train.batch_size != "auto":
        return recipe.train
    if (choice := read_choice(run.path, run.digest)) is not None:
        return settled(recipe.train, choice)
    log.say("batch_size: auto: trying how many rows fit …")
    num_rows, budget_bytes = num_units(recipe, splits.train), budget_of_worker()
    choice, text = choose(
        order.recipe, order.settings, recipe, num_rows=num_rows, training=run.digest, budget_bytes=budget_bytes
    )
    write_choice(run.path, choice, generation)
    log.say(text)
    return settled(recipe.train, choice)


def _tell_start(order: Order, recipe: Recipe, run: RunFolder, log: RunLog, *, rows: int) -> None:
    """Logs what is particular about this start."""
    if run.anew:
        snapshot.remove_snapshots(run.replaced, run.path)
        log.event("anew", changes=run.anew)
        log.say(f"{run.path} held nothing to go on from; starts anew with another recipe ({run.anew})")
    if order.failures is None:
        minutes = TIMEOUT.total_seconds() / 60
        log.say(f"this launcher does not watch for workers that hang: one holds the others up for {minutes:g} minutes")
    if recipe.data.sample is not None:
        log.event("sample", fraction=recipe.data.sample, rows=rows)
    if recipe.train.strategy == "fsdp2":
        log.say(
            "strategy fsdp2: results depend on the number of workers; a death costs the steps since the last "
            "checkpoint, and a notice waits for the end of the step, evaluation or read that is under way"
        )


def _tell_data(run: RunFolder, log: RunLog, rows: Rows, before: list[Event]) -> None:
    """Logs what the training rows are known by, at the first start and where that has changed since."""
    if log.path is None:
        return
    identity, known = identity_of(rows), data_identity(since_anew(before))
    if identity is None or (known is not None and known["xxh3"] == identity["xxh3"]):
        return
    log.event("data", **identity)
    if known is not None:
        log.say(
            f"warning: {run.path}: the training data are others than at the last start (xxh3 {known['xxh3'][:16]} → "
            f"{identity['xxh3'][:16]}); training goes on with these, and the model card says so"
        )


def _tell_world(
    log: RunLog, job: Job, resumed: Resumed, generation: int, launch: str, *, run: RunFolder, rows: Rows, loss: float
) -> Callable[[float], Event | None]:
    """Logs what is trained on and who trains now.

    Returns:
        What tells the cost of the restart, given the time of the first step after it.
    """
    world = job.world
    pids, hosts = world.gather(os.getpid()), world.gather(socket.gethostname())
    before = read_events(log.path) if log.path is not None else []
    _tell_data(run, log, rows, before)
    for one in resumed.skipped:
        log.say(f"skipped {one.name}: {one.why}")
    if resumed.step > last_step(before):  # its worker died between the snapshot and the line
        log.event("step", step=resumed.step, epoch=job.batches.plan.epoch_of(resumed.step - 1), loss=loss)
    facts: Event = {
        "generation": generation, "world_size": world.size, "pids": pids, "hosts": sorted(set(hosts)),
        "launch": launch, "step": resumed.step, "source": resumed.source,
        "total_steps": job.batches.plan.total_steps,
    }  # fmt: skip
    log.event("world", **facts)
    return partial(restart_facts, before, facts)


def _one_for_all(world: World, value: T | None) -> T:
    """Rank 0's value, at every rank."""
    first = world.gather(value)[0]
    assert first is not None  # noqa: S101 - rank 0 always gives one
    return first


def _leave(code: int) -> NoReturn:
    """Ends this process without waiting for collectives that will never complete."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
