"""A feed ranked in three passes through one archive, beside its deep net alone: NDCG@25 and CPU a request.

`recipes/feed-cascade.yaml` is trained, compressed and archived once, on a click log that is made up from a seed. Both
versions are served at once, one worker each, and asked in turns for the same 40 requests of 500 posts (the test rows).
CPU is that of a version's worker, and of all of `emberline serve` while that version is asked.
"""

import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import orjson
import psutil
from _emberline import served
from _models import CACHE, ROOT
from _wrk import cpu_seconds

from emberline import process

TARGET = "NDCG@25 >= 0.97 of the deep model alone at <= 1/5 of its CPU a request"
TRIALS = 5
RECIPE = ROOT / "recipes" / "feed-cascade.yaml"
TOP, TURNS = 25, 3
VERSIONS = {"deep": "1.0", "cascade": "2.0"}


def trial(folder: Path, number: int) -> dict[str, Any]:
    store = made()
    requests, clicked = _requests()
    archives = [store / "store" / f"feed-{version}.mar" for version in VERSIONS.values()]
    with served(folder, archives, store / "keys", workers=1) as (address, pid):
        seen: dict[str, list[dict[str, float]]] = {name: [] for name in VERSIONS}
        with httpx.Client(timeout=60) as client:
            for turn in range(TURNS + 1):  # the first warms java and the models up
                for name in list(VERSIONS)[:: (-1) ** (turn + number)]:
                    url = f"http://{address}/predictions/feed/{VERSIONS[name]}"
                    found = _ask_all(client, url, requests, clicked, pid)
                    if turn:
                        seen[name].append(found)
    return {name: {key: median(one[key] for one in turns) for key in turns[0]} for name, turns in seen.items()}


def made() -> Path:
    """Where the recipe's archives are, made when they are not there yet."""
    folder = CACHE / "feed-cascade"
    if not (folder / "store" / "feed-2.0.mar.sig").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for verb in ("train", "compress", "archive"):
            command = [sys.executable, "-m", "emberline.cli", verb, RECIPE]
            child = process.start(command, name=verb, cwd=folder, log=folder / f"{verb}.log")
            if child.wait(3000):
                raise RuntimeError((folder / f"{verb}.log").read_text()[-3000:])
    return folder


def _requests() -> tuple[list[bytes], list[np.ndarray]]:
    """Bodies of the test requests, and what was clicked in each."""
    sys.path.insert(0, str(RECIPE.parent))
    from feed_clicks import clicks

    from emberline.recipe import load_recipe

    test = clicks(**load_recipe(RECIPE).data.arguments).test
    bodies, clicked = [], []
    for one in np.unique(test.groups):
        rows = np.flatnonzero(test.groups == one)
        items = [
            {"numbers": np.round(test.inputs["numbers"][row].astype(float), 4).tolist(),
             "ids": test.inputs["ids"][row].tolist()}
            for row in rows
        ]  # fmt: skip
        bodies.append(orjson.dumps({"items": items, "top": TOP}))
        clicked.append(test.labels[rows])
    return bodies, clicked


def _ask_all(
    client: httpx.Client, url: str, requests: list[bytes], clicked: list[np.ndarray], pid: int
) -> dict[str, float]:
    before, worked, began, quality = cpu_seconds(pid), _workers_s(pid), time.monotonic(), []
    for body, gain in zip(requests, clicked, strict=True):
        answer = client.post(url, content=body, headers={"content-type": "application/json"}).raise_for_status().json()
        quality.append(_ndcg(gain, [one["index"] for one in answer["ranking"]]))
    took, count = time.monotonic() - began, len(requests)
    return {
        "ndcg": float(np.mean(quality)),
        "ms": 1e3 * took / count,
        "cpu_ms": 1e3 * (cpu_seconds(pid) - before) / count,
        "worker_cpu_ms": 1e3 * (_workers_s(pid) - worked) / count,
    }


def _workers_s(pid: int) -> float:
    """CPU time of TorchServe's Python workers."""
    total = 0.0
    for one in psutil.Process(pid).children(recursive=True):
        try:
            if one.name() != "java" and any("libtorch_cpu" in entry.path for entry in one.memory_maps()):
                times = one.cpu_times()
                total += times.user + times.system
        except psutil.Error:
            continue
    return total


def _ndcg(gain: np.ndarray, shown: list[int]) -> float:
    discount = 1 / np.log2(np.arange(2, TOP + 2))
    best = float(np.sort(gain)[::-1][:TOP] @ discount)
    return float(gain[shown] @ discount) / best if best else 1.0


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    def ratio(key: str) -> float:
        return round(median(one["cascade"][key] / one["deep"][key] for one in trials), 4)

    found = {
        f"{name}_{key}": round(median(one[name][key] for one in trials), 4)
        for name in VERSIONS
        for key in trials[0][name]
    }
    ndcg, cpu = ratio("ndcg"), ratio("cpu_ms")
    return {
        **found,
        "ndcg_ratio": ndcg,
        "cpu_ratio": cpu,
        "worker_cpu_ratio": ratio("worker_cpu_ms"),
        "reached": ndcg >= 0.97 and cpu <= 0.2,
    }
