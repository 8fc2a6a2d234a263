"""fp32 against int8 of the CIFAR-10 net, labels arriving late, from shadow to verdict by itself; and a wrong int8.

Five trials are of the healthy int8; the sixth is of one calibrated to 8 bits that computes as on a CPU without the flag
for it (`ONEDNN_MAX_CPU_ISA=AVX2`, in a TorchServe of its own), and must be stopped in shadow. The shadow's threshold is
fixed beforehand: half again the healthy one's certified disagreement over a training shard, with the control's labels.

What is trained and compiled is kept in `EMBERLINE_REAL_THING` (a folder; by default beside temporary files) and taken
from there again. CIFAR-10 as Parquet is named by `EMBERLINE_CIFAR10`; a trained run `runs/cifar10` there is reused.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from emberline import process
from emberline.experiment import Status, load_experiment
from emberline.rollout.audit import read_audit

TARGET = "five healthy runs not stopped; the int8 without reduced range stopped in shadow"
TRIALS = 6
ROOT = Path(__file__).parents[2]
MADE = Path(os.environ.get("EMBERLINE_REAL_THING", Path(tempfile.gettempdir()) / "emberline-real-thing"))
DATA = Path(os.environ.get("EMBERLINE_CIFAR10", ROOT.parent / "shared/data/cifar10"))
EPOCHS = os.environ.get("EMBERLINE_REAL_THING_EPOCHS", "20")
RATE, UNITS, MARGIN = 40, 6000, -0.03
_WRONG = "import emberline.compress.target as t; t.Target.reduce_range = property(lambda self: False)"
_TERMINAL = {"Shipped", "RolledBack", "Invalid"}


def trial(folder: Path, number: int) -> dict[str, Any]:
    prepare()
    sick = number == TRIALS - 1
    threshold = fix_threshold(folder / "threshold")
    status, audit = compete(folder / "run", sick=sick, seed=number, threshold=threshold)
    return {
        "sick": sick,
        "threshold": threshold,
        "phase": status.phase,
        "step": status.step,
        "reason": status.reason,
        "decisions": [line["event"] for line in audit],
    }


def prepare() -> None:
    """Trains, compresses twice, archives; whatever is there already stays."""
    recipe = MADE / "cifar10.yaml"
    if not recipe.is_file():
        MADE.mkdir(parents=True, exist_ok=True)
        document = yaml.safe_load((ROOT / "recipes/cifar10.yaml").read_text())
        document["archive"] = {"model": "cifar10", "versions": {"fp32": "1.0", "int8": "1.1"}, "licence": "MIT"}
        document["serve"] = {"workers": 1}
        document["compress"]["int8_for"] = "any-cpu"
        document["compress"]["artifacts"]["int8"].pop("gates", None)
        document["compress"]["artifacts"]["int8"].pop("fallbacks", None)
        document["data"]["arguments"] |= {
            "train": str(DATA / "train-0000[0-3]*.parquet"),  # the last shard fixes the threshold
            "test": str(DATA / "test.parquet"),
        }
        document["train"]["epochs"] = int(EPOCHS)
        recipe.write_text(yaml.safe_dump(document, sort_keys=False))
    for kind, patch in (("healthy", ""), ("sick", _WRONG)):
        runs, store = MADE / f"runs-{kind}", MADE / f"store-{kind}"
        if (store / "done").is_file():
            continue
        if kind == "sick" and not (runs / "cifar10").is_dir():
            runs.mkdir()
            subprocess.run(["cp", "-r", str(MADE / "runs-healthy/cifar10"), str(runs)], check=True)
            for artifact in ("fp32", "int8"):
                subprocess.run(["rm", "-rf", str(runs / "cifar10/artifacts" / artifact)], check=True)
            subprocess.run(["rm", "-rf", str(runs / "cifar10/stages")], check=True)
        for verb in ("train", "compress"):
            _emberline(verb, recipe, "--runs", runs, patch=patch)
        _emberline("archive", recipe, "--runs", runs, "--store", store, "--keys", MADE / "keys", patch=patch)
        (store / "done").touch()


def fix_threshold(folder: Path) -> float:
    """From the healthy one, over a shard that neither training nor the runs below have."""
    path = MADE / "threshold.json"
    if not path.is_file():
        shard = next(iter(sorted(DATA.glob("train-00004*.parquet"))))
        _, audit = compete(folder, sick=False, seed=99, threshold=0.5, test=shard, only_shadow=True)
        pairs = next(line["assessment"]["pairs"] for line in audit if line["event"] == "advance")
        path.write_text(json.dumps({"threshold": round(1.5 * pairs["upper"], 4), "pairs": pairs}))
    return float(json.loads(path.read_text())["threshold"])


def compete(
    folder: Path, *, sick: bool, seed: int, threshold: float, test: Path | None = None, only_shadow: bool = False
) -> tuple[Status, list[dict[str, Any]]]:
    """One experiment on a stack of its own, until it has ended (or has left its shadow)."""
    experiments = folder / "state/experiments"
    experiments.mkdir(parents=True)
    document = _experiment(threshold)
    path = experiments / "real-thing.yaml"
    path.write_text(yaml.safe_dump(document))
    with _stack(folder, sick=sick) as (url, children):
        recipe = MADE / "cifar10.yaml"
        settings = [] if test is None else ["--set", f"data.arguments.test={test}"]
        traffic = ["--rate", RATE, "--units", UNITS, "--seed", seed, "--label-delay", "5s", "--duration", "20m"]
        command = ["simulate", recipe, "--url", url, *traffic, *settings]
        clients = _start("simulate", folder, command)
        children.append(clients)

        def over() -> bool:
            assert clients.poll() in (None, 0), (folder / "simulate.log").read_text()[-2000:]
            status = load_experiment(path).status
            return status.phase in _TERMINAL or (only_shadow and status.phase == "Ramping")

        process.wait_until(over, 1200, "a verdict", every_s=0.5)
    return load_experiment(path).status, read_audit(experiments, "real-thing")


def _experiment(threshold: float) -> dict[str, Any]:
    """Weights as people ramp; margin as `emberline plan --baseline 0.85 --difference 0.0` affords at this rate."""
    return {
        "apiVersion": "emberline.dev/v1",
        "kind": "Experiment",
        "metadata": {"name": "real-thing"},
        "spec": {
            "model": "cifar10",
            "variants": [{"name": "int8", "version": "1.1"}, {"name": "fp32", "version": "1.0", "control": True}],
            "primary": {"metric": "correct", "margin": MARGIN},
            "guardrails": [{"metric": "error", "max_increase": 0.02}],
            "ramp": [
                {"shadow": 1.0, "until": {"disagreement_below": threshold, "max_wait": "10m"}},
                {"weight": 1000, "until": {"min_units": 500, "max_wait": "10m"}},
                {"weight": 5000, "until": {"max_wait": "15m"}},
            ],
            "planned_units": 6000,
        },
    }


@contextmanager
def _stack(folder: Path, *, sick: bool) -> Iterator[tuple[str, list[process.Child]]]:
    """Servers, router and controller; a sick version has a TorchServe of its own, as on an older CPU."""
    children: list[process.Child] = []
    try:
        healthy = MADE / "store-healthy"
        archives = [healthy / "cifar10-1.0.mar"] + ([] if sick else [healthy / "cifar10-1.1.mar"])
        first = _serve(folder, "serve", archives, healthy, children, environment={})
        second = first
        if sick:
            store = MADE / "store-sick"
            old_cpu = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
            second = _serve(folder, "serve-sick", [store / "cifar10-1.1.mar"], store, children, environment=old_cpu)
        port = process.free_port()
        upstreams = ["--upstream", f"cifar10@1.0={first}", "--upstream", f"cifar10@1.1={second}"]
        children.append(_start("route", folder, ["route", "--port", port, *upstreams, "--default", "cifar10=1.0"]))
        paper = folder / "state/route.json"
        process.wait_until(paper.is_file, 60, "the router")
        admin = json.loads(paper.read_bytes())["admin"]
        children.append(_start("rollout", folder, ["rollout", "--envoy-admin", admin, "--interval", "1s"]))
        yield f"http://127.0.0.1:{port}", children
    finally:
        for child in reversed(children):
            child.stop(grace_s=30)


def _serve(
    folder: Path,
    name: str,
    archives: list[Path],
    store: Path,
    children: list[process.Child],
    *,
    environment: dict[str, str],
) -> str:
    ports = [process.free_port() for _ in range(4)]
    named = ("--port", "--management-port", "--metrics-port", "--health-port")
    options = [part for pair in zip(named, ports, strict=True) for part in pair]
    state = folder / "state" / name
    command = ["serve", *archives, "--recipe", MADE / "cifar10.yaml", "--store", store, "--keys", MADE / "keys"]
    children.append(_start(name, folder, [*command, "--state", state, *options], environment))
    ready = state / "serve.json"
    process.wait_until(lambda: ready.is_file() or children[-1].poll() is not None, 240, name)
    assert ready.is_file(), (folder / f"{name}.log").read_text()[-2000:]
    return f"127.0.0.1:{ports[0]}"


def _start(name: str, folder: Path, command: list[Any], environment: dict[str, str] | None = None) -> process.Child:
    program = [sys.executable, "-m", "emberline.cli", *map(str, command)]
    env = {**os.environ, **(environment or {})}
    return process.start(program, name=name, cwd=folder, env=env, log=folder / f"{name}.log")


def _emberline(*arguments: Any, patch: str = "") -> None:
    program = f"{patch}\nfrom emberline.cli import main\nmain()"
    subprocess.run([sys.executable, "-c", program, *map(str, arguments)], cwd=MADE, check=True)


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    healthy = [trial for trial in trials if not trial["sick"]]
    sick = [trial for trial in trials if trial["sick"]]
    stopped = sum(trial["phase"] != "Shipped" and trial["reason"].startswith("stop") for trial in healthy)
    found = sum(trial["phase"] == "RolledBack" and trial["step"] == 0 for trial in sick)
    said = {
        "healthy": len(healthy),
        "healthy_stopped": stopped,
        "shipped": sum(t["phase"] == "Shipped" for t in healthy),
    }
    reached = len(healthy) == 5 and not stopped and found == len(sick) == 1
    return {**said, "sick": len(sick), "sick_stopped_in_shadow": found, "reached": reached}
