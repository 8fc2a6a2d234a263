"""What the router adds to a prediction: latency at one connection, and CPU a request at one, 16 and 64.

`serve` and `route` run at once, and TorchServe is asked directly and through Envoy in turns within a trial, by wrk. The
route has no experiment. CPU of Envoy is that of the router's whole process tree.
"""

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from _emberline import served
from _models import archived, mlp_artifact
from _wrk import cpu_seconds, drive

from emberline import process

TARGET = "p50 at 1 connection up by at most 0.3 ms; CPU a request stated"
TRIALS = 5
TURNS, SECONDS = 3, 3.0
CONNECTIONS = (1, 16, 64)


def trial(folder: Path, number: int) -> dict[str, Any]:
    artifact = mlp_artifact()
    archive, keys = archived(artifact, folder, "model")
    body = folder / "body"
    body.write_text(json.dumps(json.loads((artifact / "probe.json").read_text())["instance"]))
    seen: dict[str, list[float]] = {}
    with served(folder, [archive], keys) as (inference, pid):
        options = ["--upstream", f"model@1.0={inference}", "--default", "model=1.0", "--port", "0"]
        command = [sys.executable, "-m", "emberline.cli", "route", *options, "--state", folder / "route"]
        router = process.start(command, name="route", cwd=folder, log=folder / "route.log")
        try:
            paper = folder / "route" / "route.json"
            process.wait_until(paper.is_file, 120, "emberline route")
            routed = f"{json.loads(paper.read_bytes())['address']}/predictions/model"
            ways = {"direct": f"http://{inference}/predictions/model/1.0", "routed": routed}
            for url in ways.values():
                drive(url, body, 32, 5.0, pid)
            for turn in range(TURNS):
                for count in CONNECTIONS:
                    for name, url in list(ways.items())[:: (-1) ** (turn + number)]:
                        before = cpu_seconds(router.pid)
                        load = drive(url, body, count, SECONDS, pid)
                        seen.setdefault(f"{name}_p50_ms_at_{count}", []).append(load.p50_ms)
                        seen.setdefault(f"{name}_rps_at_{count}", []).append(load.rps)
                        if name == "routed":
                            spent_us = 1e6 * (cpu_seconds(router.pid) - before) / (load.rps * SECONDS)
                            seen.setdefault(f"router_cpu_us_at_{count}", []).append(spent_us)
        finally:
            router.stop(30)
    return {name: round(median(values), 3) for name, values in seen.items()}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    added = {
        f"added_p50_ms_at_{count}": round(
            median(one[f"routed_p50_ms_at_{count}"] - one[f"direct_p50_ms_at_{count}"] for one in trials), 3
        )
        for count in CONNECTIONS
    }
    cpu = {name: round(median(one[name] for one in trials), 1) for name in trials[0] if name.startswith("router_cpu")}
    return {**added, **cpu, "reached": added["added_p50_ms_at_1"] <= 0.3}
