"""A real `emberline serve` around archives whose answers are known."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from emberline import process, signing

# one client: each new one costs CPU for certificates that plain HTTP never uses
CLIENT = httpx.Client(timeout=60, limits=httpx.Limits(max_connections=200, max_keepalive_connections=0))
HANDLER = Path(__file__).with_name("reversing_handler.py")
START_TIMEOUT_S = 150


def write_archive(
    folder,
    version,
    *,
    model="reverse",
    bias=0.0,
    believed=None,
    probe=True,
    broken=False,
    told_by=None,
    tuned=None,
    keys=None,
):
    """An archive of the reversing model.

    `believed` is the bias that its probe expects; `told_by` is a file that tells it to fail while it is served; `tuned`
    are the settings that were found best for it.
    """
    parts = folder / f"parts-{model}-{version}"
    parts.mkdir(parents=True)
    told = {} if told_by is None else {"told_by": str(told_by)}
    (parts / "behaviour.json").write_text(json.dumps({"bias": bias, "broken": broken, **told}))
    expected = [value + (bias if believed is None else believed) for value in (3.0, 2.0, 1.0)]
    (parts / "probe.json").write_text(
        json.dumps({"instance": {"x": [1.0, 2.0, 3.0]}, "expected": expected, "tolerance": 1e-5})
    )
    files = [parts / "behaviour.json", *([parts / "probe.json"] if probe else [])]
    if tuned is not None:
        described = {"model": {"factory": "m:f"}, "preprocessing": {"inputs": [{"name": "x", "shape": [3]}]}}
        (parts / "artifact.json").write_text(json.dumps({**described, "serving": tuned}))
        files.append(parts / "artifact.json")
    extra = ",".join(map(str, files))
    options = ["--model-name", model, "--version", version, "--handler", HANDLER, "--extra-files", extra]
    subprocess.run(
        [sys.executable, "-m", "model_archiver.model_packaging", *options, "--export-path", parts],
        check=True,
        capture_output=True,
    )
    archive = (parts / f"{model}.mar").rename(folder / f"{model}-{version}.mar")
    if keys is not None:
        signing.sign(archive, keys)
    return archive


@dataclass
class Server:
    """One `emberline serve` under test, as its own process."""

    folder: Path
    child: subprocess.Popen

    @property
    def state(self):
        return json.loads((self.folder / "state" / "serve.json").read_bytes())

    @property
    def output(self):
        return (self.folder / "output").read_text()

    @property
    def java_pid(self):
        return self.state["java_pid"]

    def worker_pids(self, version):
        answer = CLIENT.get(f"http://{self.state['management']}/models/reverse/{version}").json()[0]
        return [worker["pid"] for worker in answer["workers"] if worker["status"] == "READY"]

    def ask(self, version, *, x=(1.0, 2.0, 3.0), **how):
        url = f"http://{self.state['inference']}/predictions/reverse/{version}"
        return CLIENT.post(url, json={"x": list(x), **how})

    def readiness(self):
        return CLIENT.get(f"{self.state['health']}/readyz")

    def processes(self):
        """Everything this server started that still runs: keeper, java, workers."""
        return [one for one in psutil.Process(self.child.pid).children(recursive=True) if one.is_running()]

    def ready(self):
        """This server, once every version answered its probe."""

        def is_ready():
            assert self.child.poll() is None, self.output
            return (self.folder / "state" / "serve.json").is_file()

        process.wait_until(is_ready, START_TIMEOUT_S, "emberline serve being ready")
        return self

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(60)

    def end(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()


def launch(folder, *arguments, keys=None, ports=True, workers=1, temporary="/tmp"):
    """Starts `emberline serve` in a folder of its own without waiting for anything."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--port", "0", "--management-port", "0", "--metrics-port", "0", "--health-port", "0"] if ports else []
    options += ["--state", folder / "state", *(["--keys", keys.public.parent] if keys else [])]
    options += ["--set", "serve.response_timeout_s=20"]
    options += ["--set", f"serve.workers={workers}"] if workers else []
    with (folder / "output").open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "emberline.cli", "serve", *options, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(temporary)},
            start_new_session=True,
        )
    return Server(folder, child)


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    return signing.create_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session", name="launch")
def _launch():
    return launch


@pytest.fixture(scope="session")
def make_archive():
    return write_archive


@pytest.fixture(scope="session")
def archives(tmp_path_factory, keys):
    """Versions 1.0 and 1.1, which answer differently, signed."""
    folder = tmp_path_factory.mktemp("archives")
    return [write_archive(folder, "1.0", keys=keys), write_archive(folder, "1.1", bias=100.0, keys=keys)]


@pytest.fixture(scope="session")
def server(tmp_path_factory, archives, keys):
    """A server that tests share, since a start takes seconds; each leaves it serving both versions with two workers."""
    running = launch(tmp_path_factory.mktemp("serve"), *archives, keys=keys, workers=2)
    try:
        yield running.ready()
    finally:
        running.end()


@pytest.fixture
def start(tmp_path, keys):
    """Starts servers of a test's own, ended with it."""
    started = []

    def start_one(*arguments, keys=keys, name="one", **how):
        started.append(launch(tmp_path / name, *arguments, keys=keys, **how))
        return started[-1]

    yield start_one
    for one in started:
        one.end()
