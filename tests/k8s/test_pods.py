"""The pods' own commands, run as processes here in the order a cluster would; services are loopback ports."""

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest

from emberline import process

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


class Cluster:
    """Starts containers of a manifest as processes that share one folder, as pods share the volume at /work.

    Args:
        addresses: what stands in for `service:port`, `/recipes` and the like, longest first.
    """

    def __init__(self, manifests, folder: Path, addresses: dict[str, str], stack: ExitStack) -> None:
        self._containers = dict(manifests.containers)
        self._addresses = addresses
        self._stack = stack
        self.folder = folder

    def words(self, name: str) -> list[str]:
        container = self._containers[name]
        return [self._here(word) for word in (*container["command"], *container.get("args", ()))]

    def start(self, name: str, *more: str) -> process.Child:
        program, *rest = self.words(name)
        found = Path(sys.executable).with_name(program)
        command = [found if found.exists() else program, *rest, *more]
        log = self.folder / f"{name.replace('/', '-')}.log"
        child = process.start(command, name=name, cwd=self.folder, log=log, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        self._stack.callback(child.stop)
        return child

    def run(self, name: str, timeout_s: float = 300) -> None:
        code = self.start(name).wait(timeout_s)
        assert code == 0, (self.folder / f"{name.replace('/', '-')}.log").read_text()[-2000:]

    def is_ready(self, name: str, child: process.Child) -> bool:
        """What the kubelet would find by the container's readiness probe."""
        assert child.poll() is None, (self.folder / f"{name.replace('/', '-')}.log").read_text()[-2000:]
        _, *rest = self._containers[name]["readinessProbe"]["exec"]["command"]
        command = [sys.executable, *map(self._here, rest)]
        return subprocess.run(command, check=False, capture_output=True, timeout=10).returncode == 0

    def _here(self, word: str) -> str:
        for there, here in self._addresses.items():
            word = word.replace(there, here)
        return word


def test_from_two_training_pods_to_an_answer_of_the_router(rendered, root, tmp_path):
    shutil.copytree(root / "recipes", tmp_path / "recipes")
    recipe = tmp_path / "recipes/digits.yaml"
    quick = re.sub(r"epochs: \d+", "epochs: 2", recipe.read_text()).replace("[aoti]", "[onnx]")  # no minute of g++
    recipe.write_text("\n".join(line for line in quick.splitlines() if "stage: quantize" not in line))
    store, router, *serving = (process.free_port() for _ in range(10))
    ports = iter(serving)
    addresses = {
        "rendezvous-digits:29400": f"127.0.0.1:{store}",
        "29400": str(store),
        "/recipes": str(tmp_path / "recipes"),
        "/etc/emberline/experiments": str(tmp_path / "experiments"),
        "0.0.0.0": "127.0.0.1",
        "--port=8080": f"--port={router}",
    }
    (tmp_path / "experiments").mkdir()
    with ExitStack() as stack:
        manifests = rendered("demo")
        cluster = Cluster(manifests, tmp_path, addresses, stack)
        waiting = cluster.start("compress-digits/wait-for-run")
        cluster.start("rendezvous-digits/rendezvous")
        pods = [cluster.start("train-digits/train") for _ in range(2)]
        log = tmp_path / "runs/digits/log.jsonl"
        process.wait_until(lambda: log.is_file() and '"step"' in log.read_text(), 120, "a first step")
        assert waiting.poll() is None
        pods[0].send(signal.SIGKILL)
        pods[0].wait(30)
        pods[0] = cluster.start("train-digits/train")  # as the Job replaces a pod
        assert [pod.wait(240) for pod in pods] == [0, 0]
        assert waiting.wait(20) == 0
        cluster.run("compress-digits/compress")
        cluster.run("compress-digits/archive")
        upstreams = {}
        for version in ("1-0", "1-1"):
            inference, health, management, metrics = (next(ports) for _ in range(4))
            upstreams[f"serve-digits-{version}:8085"] = f"127.0.0.1:{inference}"
            own = {
                "--port=8085": f"--port={inference}",
                "8088": str(health),
                "--state=state": f"--state=state-{version}",
            }
            pod = Cluster(manifests, tmp_path, addresses | own, stack)
            pod.run(f"serve-digits-{version}/wait-for-archive")
            more = (f"--management-port={management}", f"--metrics-port={metrics}")
            name = f"serve-digits-{version}/serve"
            child = pod.start(name, *more)
            process.wait_until(partial(pod.is_ready, name, child), 240, f"version {version}", every_s=1)
        Cluster(manifests, tmp_path, upstreams | addresses, stack).start("route/route")
        url = f"http://127.0.0.1:{router}"
        process.wait_until(lambda: _status(f"{url}/readyz") == 200, 60, "the router")
        answer = httpx.post(f"{url}/predictions/digits", json={"pixels": [[0] * 8] * 8}, headers={"x-unit-id": "a"})
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-model-version"] == "1.0"
        assert answer.json()["label"] in set("0123456789")


def _status(url: str) -> int:
    try:
        return httpx.get(url).status_code
    except httpx.TransportError:
        return 0
