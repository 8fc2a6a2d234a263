"""Ten minutes of fuzzing: schemathesis from our OpenAPI at the router, then atheris on the decoders.

Schemathesis draws requests that the document allows and requests that it forbids, for a tensor and a ranking model;
good requests with known answers run all the while. No answer may be a 5xx, none may be off the document, no worker may
die. Atheris then feeds mutated bytes to every decoder of the handlers, coverage-guided, in a process of its own:
anything but an `InvalidInput` is a crash. Both come from `pip install schemathesis atheris` into `.venv-peers`;
`BENCH_FUZZ_S` is the time of each, 300 s unless set.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
from _emberline import served
from _models import ROOT
from _peers import BIN
from malformed import _tensor_model, _workers

from emberline import process, signing
from emberline.archive.store import write_archive
from emberline.recipe import Archive

TARGET = "every good request answered right, no 5xx, no crash of a decoder, 0 worker deaths, memory up by 5 % at most"
TRIALS = 1
SECONDS = int(os.environ.get("BENCH_FUZZ_S", "300"))
DECODERS = Path(__file__).parent / "_fuzz" / "decoders.py"


def trial(folder: Path, number: int) -> dict[str, Any]:
    for tool in ("schemathesis", "atheris"):
        if not list(BIN.parent.glob(f"lib/python3.*/site-packages/{tool}")):
            raise SystemExit(
                f"error: {tool} is not in .venv-peers\nhint: .venv-peers/bin/pip install schemathesis atheris"
            )
    return {"requests": _requests(folder, number), "decoders": _decoders(folder, number)}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    (one,) = trials
    asked, decoded = one["requests"], one["decoders"]
    wrong = asked["good_wrong"] + asked["failures"] + asked["worker_deaths"] + decoded["crashes"]
    return {**asked, **decoded, "reached": not wrong and asked["memory_growth"] <= 0.05}


def _requests(folder: Path, number: int) -> dict[str, Any]:
    made, good = _tensor_model()
    keys = signing.create_keys(folder / "keys")
    archives = []
    for model, handler in (("numbers", "tensor"), ("ranked", "ranking")):
        settings = Archive.model_validate({"model": model, "versions": {made.name: "1.0"}, "handler": handler})
        archives.append(write_archive(made, settings, folder / "r.yaml", store=folder / "store", keys=keys).path)
    with served(folder, archives, keys.public.parent) as (inference, pid):
        options = [part for one in ("numbers", "ranked") for part in ("--upstream", f"{one}@1.0={inference}")]
        options += [part for one in ("numbers", "ranked") for part in ("--default", f"{one}=1.0")]
        command = [sys.executable, "-m", "emberline.cli", "route", *options, "--port", "0", "--state", folder / "route"]
        router = process.start(command, name="route", cwd=folder, log=folder / "route.log")
        try:
            process.wait_until((folder / "route" / "route.json").is_file, 120, "emberline route")
            url = json.loads((folder / "route" / "route.json").read_bytes())["address"]
            before = _workers(pid)
            memory = _memory(before)
            with _GoodTraffic(f"{url}/predictions/numbers", good) as traffic:
                failures, output = _schemathesis(folder, archives, url, number)
            after = _workers(pid)
            return {
                "good": traffic.asked,
                "good_wrong": traffic.wrong,
                "failures": failures,
                **({"output": output} if failures else {}),
                "worker_deaths": len(before.keys() - after.keys()),
                "memory_growth": round(_memory(after) / memory - 1, 4),
            }
        finally:
            router.stop(30)


def _schemathesis(folder: Path, archives: list[Path], url: str, number: int) -> tuple[int, str]:
    """Whether it found anything, and the end of what it said."""
    document = folder / "openapi.json"
    printed = subprocess.run(
        [sys.executable, "-m", "emberline.cli", "openapi", *archives, "--url", url], check=True, capture_output=True
    ).stdout
    document.write_bytes(printed)
    command = [BIN / "python", "-m", "schemathesis.cli", "run", document, "--url", url, "--seed", str(number + 1)]
    command += ["--checks", "not_a_server_error,status_code_conformance,response_schema_conformance", "--mode", "all"]
    command += ["--include-path-regex", "^/(predictions|v1|v2/models/[a-z]+/infer)", "--max-examples", "100000"]
    command += ["--phases", "coverage,fuzzing", "--max-time", str(SECONDS), "--continue-on-failure"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS + 300, check=False)
    return int(done.returncode != 0), done.stdout.replace(f"{folder}/", "")[-3000:]


def _decoders(folder: Path, number: int) -> dict[str, Any]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "handlers")}
    options = [
        f"-max_total_time={SECONDS}",
        f"-seed={number + 1}",
        "-max_len=4096",
        f"-artifact_prefix={folder}/crash-",
    ]
    done = subprocess.run(
        [BIN / "python", DECODERS, *options], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    runs = [line for line in done.stderr.splitlines() if line.startswith("Done ")]
    return {
        "crashes": len(list(folder.glob("crash-*"))) or int(done.returncode != 0),
        "runs": runs[-1] if runs else done.stderr[-1500:],
    }


class _GoodTraffic:
    """Asks one request all the time, from a thread, and compares each answer with the first."""

    def __init__(self, url: str, good: dict[str, Any]) -> None:
        self.asked = self.wrong = 0
        self._url, self._good = url, good
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def _run(self) -> None:
        with httpx.Client(timeout=30) as client:
            label = client.post(self._url, json=self._good).json()["label"]
            while not self._ended.wait(0.02):
                answer = client.post(self._url, json=self._good)
                self.asked += 1
                self.wrong += answer.status_code != httpx.codes.OK or answer.json()["label"] != label


def _memory(workers: dict[int, psutil.Process]) -> int:
    return sum(one.memory_info().rss for one in workers.values() if one.is_running())
