"""The lines of the clients' guide do what the guide says."""

import json
import re
import subprocess
import sys

import pytest

from emberline import process, signing
from emberline.archive.store import write_archive
from emberline.recipe import Archive

SPEC = {
    "inputs": [{"name": "pixels", "shape": [8, 8], "minimum": 0, "maximum": 16}],
    "steps": [{"op": "scale", "by": 0.0625}, {"op": "reshape", "shape": [1, 8, 8]}],
}


@pytest.fixture(scope="module")
def router(export_artifact, tmp_path_factory):
    """The address of a router before an untrained net of digits."""
    from emberline.models.digits import digits_cnn

    folder = tmp_path_factory.mktemp("clients")
    labels = [str(digit) for digit in range(10)]
    artifact = export_artifact(folder / "fp32", digits_cnn(width=8), SPEC, {"pixels": [[1.0] * 8] * 8}, labels)
    keys = signing.create_keys(folder / "keys")
    settings = Archive(model="digits", versions={"fp32": "1.0"})
    write_archive(artifact, settings, folder / "recipe.yaml", store=folder / "store", keys=keys)
    ports = [part for name in ("port", "management-port", "metrics-port", "health-port") for part in (f"--{name}", "0")]
    serve = start("serve", folder, *ports, "--set", "serve.workers=1")
    try:
        inference = paper(serve, folder, "serve")["inference"]
        route = start(
            "route", folder, "--upstream", f"digits@1.0={inference}", "--default", "digits=1.0", "--port", "0"
        )
        try:
            yield paper(route, folder, "route")["address"]
        finally:
            route.stop(30)
    finally:
        serve.stop(60)


def start(verb, folder, *options):
    command = [sys.executable, "-m", "emberline.cli", verb, *options]
    return process.start(command, name=verb, cwd=folder, log=folder / f"{verb}.log")


def paper(child, folder, verb):
    def is_there():
        assert child.poll() is None, (folder / f"{verb}.log").read_text()
        return (folder / "state" / f"{verb}.json").is_file()

    process.wait_until(is_there, 150, verb)
    return json.loads((folder / "state" / f"{verb}.json").read_bytes())


def answers(root, router, folder):
    """What each curl of the guide prints, in order; the blocks share one shell, as they would a person's."""
    blocks = re.findall(r"```sh\n(.*?)```", (root / "docs/guides/clients.md").read_text(), re.DOTALL)
    script = "".join(blocks).replace("curl -s", "echo; curl -s")
    shell = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        shell, cwd=folder, env={"ROUTER": router, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line]


def test_the_guides_curl_lines_are_answered_as_it_says(root, router, tmp_path):
    single, several, metadata, inferred, wrong, taken, ready, model = answers(root, router, tmp_path)
    assert single["label"] in "0123456789"
    assert [one["label"] for one in several["predictions"]] == [single["label"]] * 2
    assert (metadata["name"], metadata["inputs"][0]["shape"]) == ("digits", [-1, 8, 8])
    scores, label = inferred["outputs"]
    assert (inferred["id"], label["data"]) == ("7", [single["label"]])
    assert scores["data"] == pytest.approx(single["scores"], abs=1e-5)
    assert wrong["field"] == "pixels"
    assert taken == {"accepted": 1}
    assert ready == {"ready": True}
    assert model == {"name": "digits", "ready": True}
