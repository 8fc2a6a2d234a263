"""A run's numbers for TensorBoard and MLflow: both are told what the run's log says, by one thread outside the workers.

So a restart of workers waits for neither, and a tracker that is slow or away slows no step. Of several launchers of one
run one holds a lock and does it, another takes over when that one ends, each from where the last one was: the place in
the log is written down beside it. What a tracker cannot be told is said once, and told again later.
"""

import fcntl
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import orjson

from emberline import storage
from emberline.errors import MissingTool
from emberline.recipe import METRICS, Recipe
from emberline.runlog import warn
from emberline.train.folder import LOG, training_of
from emberline.train.summary import Event

_POLL_S = 1.0
_PLACE = "tracking.json"
# event → part → the event's numbers that stand there under part/name
_SCALARS: dict[str, dict[str, tuple[str, ...]]] = {
    "step": {"train": ("loss", "samples_per_s")},
    "epoch": {"validation": (*METRICS.values(), "loss")},
    "world": {"run": ("world_size",)},
    "restart": {"run": ("seconds_lost", "steps_lost")},
    "done": {
        "result": (*METRICS.values(), "loss", "goodput", "seconds", "seconds_lost", "steps_lost", "restarts"),
    },
}


class Tracker(Protocol):
    def __call__(self, events: Sequence[Event]) -> None:
        """Takes events of training, in their order. Where it raises, they come again with the next ones."""

    def begin_anew(self) -> None:
        """The folder's training starts again from nothing: what was told is another one's."""

    def close(self) -> None: ...


def require_trackers(names: Sequence[str]) -> None:
    """Raises MissingTool where one is not installed."""
    for name in names:
        if find_spec(name) is None:
            hint = f"pip install 'emberline[{name}]', or take it out of train.track"
            raise MissingTool(f"the package {name!r}", "train.track names it", hint=hint)


class Tracking:
    """Tells a run's trackers what its log says, until this block is left.

    Args:
        folder: the run's.
        names: of the trackers.
    """

    def __init__(self, folder: Path, recipe: Recipe, names: Sequence[str]) -> None:
        self._folder, self._recipe, self._names = folder, recipe, names
        self._trackers: list[Tracker] = []
        self._lock: int | None = None
        self._position, self._warned = 0, False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)

    def __enter__(self) -> Self:
        if self._names:
            self._thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _: BaseException | None, _at: TracebackType | None) -> None:
        self._ended.set()
        if self._names:
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(_POLL_S):
            self._follow()
        self._follow()
        for one in self._trackers:
            one.close()
        if self._lock is not None:
            os.close(self._lock)

    def _follow(self) -> None:
        if not (self._folder / LOG).is_file() or not self._hold():
            return
        with (self._folder / LOG).open("rb") as file:
            file.seek(self._position)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if not whole:
            return
        try:
            if not self._trackers:
                self._trackers = [make_tracker(name, self._folder, self._recipe) for name in self._names]
            events = [orjson.loads(line) for line in whole.splitlines()]
            anew = max((place for place, event in enumerate(events) if event["event"] == "anew"), default=None)
            for one in self._trackers:
                if anew is not None:
                    one.begin_anew()
                one(events[(anew or 0) :])
        except Exception as error:  # noqa: BLE001 - a server may fail in any way, and training does not depend on it
            if not self._warned:
                warn(f"{', '.join(self._names)}: {error}; training goes on, and its numbers are sent later")
            self._warned = True
            return
        self._position += len(whole)
        storage.write_bytes(self._folder / _PLACE, orjson.dumps({"position": self._position}))

    def _hold(self) -> bool:
        """Whether this process is the one that tracks; takes over from one that ended."""
        if self._lock is not None:
            return True
        descriptor = os.open(self._folder / ".tracking", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        place = self._folder / _PLACE
        self._position = int(orjson.loads(place.read_bytes())["position"]) if place.is_file() else 0
        return True


def make_tracker(name: str, folder: Path, recipe: Recipe) -> Tracker:
    return TensorBoard(folder / "tensorboard") if name == "tensorboard" else MLflow(folder, recipe)


def scalars(event: Event) -> dict[str, float]:
    """What of an event is a number over steps; the names are the same in all trackers."""
    found: dict[str, float] = {}
    for part, names in _SCALARS.get(event["event"], {}).items():
        found |= {f"{part}/{name}": float(event[name]) for name in names if event.get(name) is not None}
    return found


def _step_of(event: Event, before: int) -> int:
    """Steps done at an event; those of the event before where it does not say."""
    return int(event.get("step") or event.get("steps") or before)


class TensorBoard:
    """Event files in the run's folder: `tensorboard --logdir runs`."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._last = folder, 0
        self._writer = self._open(None)

    def __call__(self, events: Sequence[Event]) -> None:
        for event in events:
            step = _step_of(event, self._last)
            if event["event"] == "world" and step < self._last:  # steps that are done again replace what was told
                self._writer.close()
                self._writer = self._open(step + 1)
            for name, value in scalars(event).items():
                self._writer.add_scalar(name, value, step, walltime=event["time"])
            self._last = step if event["event"] == "world" else max(self._last, step)
        self._writer.flush()

    def begin_anew(self) -> None:
        self._writer.close()
        shutil.rmtree(self._folder)
        self._writer, self._last = self._open(None), 0

    def close(self) -> None:
        self._writer.close()

    def _open(self, purge_step: int | None) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._folder), purge_step=purge_step)


class MLflow:
    """One run of an MLflow experiment named as the recipe's run; gone on with by later starts.

    Where MLFLOW_TRACKING_URI names no server, `mlflow.db` beside the runs holds it.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        import logging

        from mlflow.tracking import MlflowClient

        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder.parent / 'mlflow.db').resolve()}"
        self._client, self._path, self._recipe = MlflowClient(address), folder / "mlflow.json", recipe
        self._run_id = self._known() or self._begin()

    def __call__(self, events: Sequence[Event]) -> None:
        from mlflow.entities import Metric

        metrics, status, step = [], None, 0
        for event in events:
            at = int(event["time"] * 1000)
            step = _step_of(event, step)
            status = {"done": "FINISHED", "preempted": "KILLED", "world": "RUNNING"}.get(event["event"], status)
            metrics += [Metric(name, value, at, step) for name, value in scalars(event).items()]
        for first in range(0, len(metrics), 1000):  # as many as one request may hold
            self._client.log_batch(self._run_id, metrics=metrics[first : first + 1000])
        if status is not None:
            self._client.update_run(self._run_id, status=status)

    def begin_anew(self) -> None:
        self._run_id = self._begin()

    def close(self) -> None:
        """Nothing: each batch of events was sent whole."""

    def _known(self) -> str | None:
        if not self._path.is_file():
            return None
        return str(orjson.loads(self._path.read_bytes())["run_id"])

    def _begin(self) -> str:
        from mlflow.entities import Param

        name = self._recipe.run
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment is not None else self._client.create_experiment(name)
        run_id = str(self._client.create_run(number, run_name=name).info.run_id)
        params = [Param(key, str(value)[:500]) for key, value in sorted(leaves(training_of(self._recipe)).items())]
        self._client.log_batch(run_id, params=params[:100])  # as many as one request may hold
        storage.write_bytes(self._path, orjson.dumps({"run_id": run_id}))
        return run_id


def leaves(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The values of nested mappings, by their dotted keys; absent ones left out."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= leaves(value, f"{above}{key}.")
        elif value is not None:
            found[f"{above}{key}"] = value
    return found
