"""`emberline serve` from its first instruction to the first right prediction, with one signed version and three."""

import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from _models import archived, mlp_artifact

from emberline import process, signing
from emberline.serve import classes

TARGET = "<= 4 s with one version, files cached; each further version stated"
TRIALS = 5
VERSIONS = 3
MODEL = "mlp"


def trial(folder: Path, _number: int) -> dict[str, Any]:
    keys = signing.create_keys(folder / "keys")
    made = [archived(mlp_artifact(), folder / str(n), MODEL, f"1.{n}")[0] for n in range(VERSIONS)]
    for archive in made:
        signing.sign(archive, keys)  # all by one key
    if not list(classes.cache_folder().glob("*.jsa")):  # files cached: java's classes are among them
        _start(folder / "first", made[:1], until=lambda log: "java_classes_shared" in log)
    one_s, one_cpu_s = _start(folder / "one", made[:1])
    all_s, all_cpu_s = _start(folder / "all", made)
    load = round(os.getloadavg()[0], 1)
    return {"one_s": one_s, "all_s": all_s, "one_cpu_s": one_cpu_s, "all_cpu_s": all_cpu_s, "load_average": load}


def _start(folder: Path, archives: list[Path], until: Any = None) -> tuple[float, float]:
    """Seconds until the last version's right answer, and seconds of CPU that all processes took until then."""
    folder.mkdir()
    ports = [part for name in ("port", "management-port", "metrics-port", "health-port") for part in (f"--{name}", "0")]
    command = [sys.executable, "-m", "emberline.cli", "serve", *archives, "--keys", folder.parent / "keys"]
    began = time.monotonic()
    child = process.start([*command, *ports], name="serve", cwd=folder, log=folder / "log")
    try:
        paper = folder / "state" / "serve.json"

        def is_there() -> bool:
            assert child.poll() is None, (folder / "log").read_text()
            return paper.is_file()

        process.wait_until(is_there, 240, "serve", every_s=0.01)
        facts = json.loads(paper.read_bytes())
        body = {"x": [round(0.01 * number - 0.3, 2) for number in range(64)]}
        for archive in archives:  # `serve` itself has compared each version's answer to its probe
            version = archive.stem.removeprefix(f"{MODEL}-")
            answer = httpx.post(f"http://{facts['inference']}/predictions/{MODEL}/{version}", json=body)
            assert len(answer.json()["scores"]) == 10
        seconds, cpu_s = time.monotonic() - began, _cpu_seconds(child.pid)
        if until is not None:
            process.wait_until(lambda: until((folder / "state" / "serve.jsonl").read_text()), 300, "the cache")
    finally:
        child.stop(60)
    return round(seconds, 2), round(cpu_s, 2)


def _cpu_seconds(pid: int) -> float:
    import psutil

    root = psutil.Process(pid)
    times = [one.cpu_times() for one in (root, *root.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    one, several = (median(trial[name] for trial in trials) for name in ("one_s", "all_s"))
    return {
        "one_version_s": one,
        "one_version_cpu_s": median(trial["one_cpu_s"] for trial in trials),
        "each_further_version_s": round((several - one) / (VERSIONS - 1), 2),
        "reached": one <= 4.0,
    }
