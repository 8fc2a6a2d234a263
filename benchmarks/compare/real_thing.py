"""fp32 against int8 of the CIFAR-10 net, labels arriving late, from shadow to verdict by itself; and a wrong int8.

The first trial is of an int8 calibrated to 8 bits that computes as on a CPU without the flag for it
(`ONEDNN_MAX_CPU_ISA=AVX2`, in a TorchServe of its own), and must be stopped in shadow. Its probe's tolerance is taken
away with the reduced range: else the worker finds it wrong and serves the float package, and nothing is there to stop.
The other five are of the healthy int8: five times the same two archives with other clients, of whom each label comes
five seconds after its answer. A trial in which another package was served than the version is named for is none.

What the experiments ask for is fixed beforehand, by a shadow of the healthy one over a training shard that the net was
not trained on: the threshold of the shadow is half again the disagreement certified there. `emberline plan` is told
that traffic, and names the units for one margin after the other; the narrowest whose units come in minutes is taken.
Guardrails are errors alone, and no latency: trials run on machines that others work on.

Rows come from `data/cifar10` (or `$EMBERLINE_DATA/cifar10`). What is trained, compressed and fixed is kept in
`$EMBERLINE_REAL_THING`, by default a folder among temporary files, and taken from there again. The net is trained for
`$EMBERLINE_REAL_THING_EPOCHS` epochs, 20 by default.
"""

import json
import os
import re
import shutil
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
from emberline.runlog import read_events

TARGET = "five healthy runs come to a verdict and none is stopped; the int8 without reduced range is stopped in shadow"
TRIALS = 6
SICK = 0
ROOT = Path(__file__).parents[2]
MADE = Path(os.environ.get("EMBERLINE_REAL_THING", Path(tempfile.gettempdir()) / "emberline-real-thing")).resolve()
DATA = Path(os.environ.get("EMBERLINE_DATA", ROOT / "data")).resolve() / "cifar10"
EPOCHS = os.environ.get("EMBERLINE_REAL_THING_EPOCHS", "20")
RATE, LABEL_DELAY = 30, "5s"
PAIRS_BEFOREHAND, HALF_AGAIN = 4000, 1.5
MARGINS = (0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05)
UNITS_AT_MOST = 9_000  # five minutes of clients of whom none comes twice
_TIMEOUT_S = 24 * 60  # the steps' longest waits, and the start of the servers
_WRONG = """
import emberline.compress.probe as probe, emberline.compress.target as target
target.Target.reduce_range = property(lambda self: False)
probe._ROOM = 1e6
"""
_TERMINAL = {"Shipped", "RolledBack", "Invalid"}


def trial(folder: Path, number: int) -> dict[str, Any]:
    prepare()
    terms = fix_terms()
    sick = number == SICK
    experiment = _experiment({"disagreement_below": terms["threshold"]}, terms["margin"], terms["planned_units"])
    clients = ["--units", 4 * terms["planned_units"], "--seed", number]
    status, audit = compete(folder / "run", experiment, clients, sick=sick)
    return {
        "sick": sick,
        "epochs": terms["epochs"],
        "threshold": terms["threshold"],
        "pairs_beforehand": terms["pairs"],
        "plan": {name: terms[name] for name in ("command", "margin", "planned_units", "output")},
        "phase": status.phase,
        "step": status.step,
        "reason": status.reason,
        "served": served_packages(folder / "run/state"),
        "seconds": round(status.since - status.began, 1),
        "decisions": [_decision(line) for line in audit],
    }


def _decision(line: dict[str, Any]) -> dict[str, Any]:
    look = line["assessment"] or {}
    units = sum(arm["units"] for arm in look.get("arms", ()))
    return {"event": line["event"], "phase": line["status"]["phase"], "reason": line["reason"], "units": units}


def served_packages(state: Path) -> dict[str, str]:
    """The package that each version answered with, as the servers' events tell.

    Raises:
        RuntimeError: not the one the version is named for: a float version was compared with itself.
    """
    events = [one for path in sorted(state.glob("*/serve.jsonl")) for one in read_events(path)]
    served = {one["version"]: ", ".join(one["packages"]) for one in events if one["event"] == "probed"}
    if "fp32" not in served["1.0"] or "int8" not in served["1.1"]:
        raise RuntimeError(f"{state}: served were {served}; 1.0 must be the fp32 package and 1.1 the int8 one")
    return served


def prepare() -> None:
    """Trains, compresses twice, archives; whatever is there already stays.

    Raises:
        FileNotFoundError: the rows are not there.
    """
    if not DATA.is_dir():
        raise FileNotFoundError(f"{DATA} is not there; name the folder that has cifar10/ in EMBERLINE_DATA")
    recipe = MADE / "cifar10.yaml"
    if not recipe.is_file():
        MADE.mkdir(parents=True, exist_ok=True)
        document = yaml.safe_load((ROOT / "recipes/cifar10.yaml").read_text())
        document["archive"] = {"model": "cifar10", "versions": {"fp32": "1.0", "int8": "1.1"}, "licence": "MIT"}
        document["serve"] = {"workers": 1}
        document["compress"]["int8_for"] = "any-cpu"
        for artifact in document["compress"]["artifacts"].values():
            artifact.pop("gates", None)
            artifact.pop("fallbacks", None)
            artifact["stages"][-1]["backends"] = ["aoti"]  # oneDNN computes; other runtimes know the CPU by themselves
        document["data"]["arguments"] |= {
            "train": str(DATA / "train-0000[0-3]*.parquet"),  # the last shard fixes the terms
            "test": str(DATA / "test.parquet"),
        }
        document["train"]["epochs"] = int(EPOCHS)
        recipe.write_text(yaml.safe_dump(document, sort_keys=False))
    for kind, patch in (("healthy", ""), ("sick", _WRONG)):
        runs, store = MADE / f"runs-{kind}", MADE / f"store-{kind}"
        if (store / "done").is_file():
            continue
        if kind == "sick" and not (runs / "cifar10").is_dir():
            nothing_made = shutil.ignore_patterns("fp32", "int8", ".cache", "compress")
            shutil.copytree(MADE / "runs-healthy/cifar10", runs / "cifar10", symlinks=True, ignore=nothing_made)
        for verb in ("train", "compress"):
            _emberline(verb, recipe, "--runs", runs, patch=patch)
        _emberline("archive", recipe, "--runs", runs, "--store", store, "--keys", MADE / "keys", patch=patch)
        (store / "done").touch()


def fix_terms() -> dict[str, Any]:
    """Threshold, margin and units, from the healthy one over a shard that neither training nor the trials have."""
    path, folder = MADE / "terms.json", MADE / "beforehand"
    if not path.is_file():
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
        shard = next(iter(sorted(DATA.glob("train-00004*.parquet"))))
        experiment = _experiment({"disagreement_below": 0.5, "min_units": PAIRS_BEFOREHAND}, -MARGINS[0], None)
        clients = ["--units", UNITS_AT_MOST, "--seed", 99, "--set", f"data.arguments.test={shard}"]
        _, audit = compete(folder, experiment, clients, sick=False, only_shadow=True)
        pairs = next(line["assessment"]["pairs"] for line in audit if line["event"] == "advance")
        threshold = round(HALF_AGAIN * pairs["upper"], 4)
        epochs = yaml.safe_load((MADE / "cifar10.yaml").read_text())["train"]["epochs"]
        known = {"epochs": epochs, "threshold": threshold, "pairs": pairs}
        path.write_text(json.dumps({**known, **plan(folder, threshold, pairs["rate"])}))
    terms: dict[str, Any] = json.loads(path.read_text())
    return terms


def plan(folder: Path, threshold: float, disagreement: float) -> dict[str, Any]:
    """The narrowest margin that few enough units prove, with what `emberline plan` said of it."""
    for margin in MARGINS:
        document = _experiment({"disagreement_below": threshold}, -margin, None)
        (folder / "planned.yaml").write_text(yaml.safe_dump(document))
        options = ["planned.yaml", "--data", "data", "--difference", "0", "--disagreement", f"{disagreement:.4f}"]
        command = [sys.executable, "-m", "emberline.cli", "plan", *options]
        wide = {**os.environ, "COLUMNS": "120"}
        said = subprocess.run(command, cwd=folder, env=wide, check=True, capture_output=True, text=True).stdout
        found = re.search(r"^planned_units: (\d+) ", said, re.MULTILINE)
        assert found is not None, said
        if int(found[1]) <= UNITS_AT_MOST:
            lines = [line.strip() for line in said.splitlines() if line.strip(" ─")]
            told = {"command": " ".join(["emberline", "plan", *options]), "output": lines}
            return {"margin": -margin, "planned_units": int(found[1]), **told}
    raise RuntimeError(f"no margin up to {MARGINS[-1]} can be proved by {UNITS_AT_MOST} units")


def compete(
    folder: Path, experiment: dict[str, Any], clients: list[Any], *, sick: bool, only_shadow: bool = False
) -> tuple[Status, list[dict[str, Any]]]:
    """One experiment on a stack of its own, until it has ended (or has left its shadow)."""
    experiments = folder / "state/experiments"
    experiments.mkdir(parents=True)
    path = experiments / "real-thing.yaml"
    path.write_text(yaml.safe_dump(experiment))
    with _stack(folder, sick=sick) as (url, children):
        traffic = ["--rate", RATE, "--label-delay", LABEL_DELAY, "--duration", "1h", *clients]
        simulator = _start("simulate", folder, ["simulate", MADE / "cifar10.yaml", "--url", url, *traffic])
        children.append(simulator)

        def over() -> bool:
            assert simulator.poll() is None, (folder / "simulate.log").read_text()[-2000:]
            status = load_experiment(path).status
            return status.phase in _TERMINAL or (only_shadow and status.phase == "Ramping")

        process.wait_until(over, _TIMEOUT_S, "a verdict", every_s=0.5)
    return load_experiment(path).status, read_audit(experiments, "real-thing")


def _experiment(shadow_until: dict[str, Any], margin: float, planned_units: int | None) -> dict[str, Any]:
    """The whole ramp; without planned units as `emberline plan` is asked."""
    return {
        "apiVersion": "emberline.dev/v1",
        "kind": "Experiment",
        "metadata": {"name": "real-thing"},
        "spec": {
            "model": "cifar10",
            "variants": [{"name": "int8", "version": "1.1"}, {"name": "fp32", "version": "1.0", "control": True}],
            "primary": {"metric": "correct", "margin": margin},
            "guardrails": [{"metric": "error", "max_increase": 0.02}],
            "ramp": [
                {"shadow": 1.0, "until": {**shadow_until, "max_wait": "5m"}},
                {"weight": 1000, "until": {"min_units": 500, "max_wait": "5m"}},
                {"weight": 5000, "until": {"max_wait": "12m"}},
            ],
            **({} if planned_units is None else {"planned_units": planned_units}),
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
    phases = [trial["phase"] for trial in healthy]
    stopped = sum(trial["reason"].startswith("stop") for trial in healthy)
    invalid = phases.count("Invalid")
    found = sum(trial["step"] == 0 and trial["reason"].startswith("stop") for trial in sick)
    return {
        "healthy": len(healthy),
        "healthy_stopped": stopped,
        "shipped": phases.count("Shipped"),
        "inconclusive": len(healthy) - stopped - invalid - phases.count("Shipped"),
        "invalid": invalid,
        "sick": len(sick),
        "sick_stopped_in_shadow": found,
        "reached": len(healthy) == TRIALS - 1 and not stopped and not invalid and found == len(sick) == 1,
    }
