"""The whole path, once through: train and survive a kill, compress, archive, serve, route, compare.

Only the clients are simulated. What the comparison says is not known beforehand.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from emberline.errors import StageFailed
from emberline.experiment import Experiment, load_experiment
from emberline.paper import read_manifest
from emberline.process import Child, start
from emberline.recipe import Recipe, load_recipe
from emberline.runlog import RunLog, read_events
from emberline.storage import write_bytes
from emberline.up.sabotage import kill_worker_half_way
from emberline.up.settings import Settings, archives, build_steps
from emberline.up.stack import require_free_ports, stack_file, stop_running
from emberline.up.verbs import ORPHAN_GRACE_S, command, run_verb, start_verb, tail

_STACK_TIMEOUT_S = 240.0
_RATE = 60
_UNITS = 6000
_SEED = 1


@dataclass
class Demo:
    """One demo: what each stage came to, for the table at its end."""

    settings: Settings
    recipe: Recipe
    report: Path
    keep: bool
    log: RunLog
    rows: list[tuple[str, str, float]] = field(default_factory=list)

    def stage(self, name: str, work: Callable[[], str]) -> None:
        self.log.console.rule(name)
        started = time.monotonic()
        outcome = work()
        seconds = time.monotonic() - started
        self.rows.append((name, outcome, seconds))
        self.log.event("stage", stage=name, outcome=outcome, seconds=seconds)


def run_demo(settings: Settings, report: Path, *, keep: bool) -> None:
    """Runs all stages, then stops everything, or leaves it up with `keep`.

    Raises:
        EmberlineError: a stage failed; what earlier ones made is kept, and the next demo goes on from there.
    """
    log = RunLog(settings.state / "demo.jsonl")
    recipe = load_recipe(settings.recipe)
    archives(recipe, settings.store)
    if stop_running(settings.state):
        log.say("an earlier stack was up; it is stopped now")
    require_free_ports(settings)  # said before minutes of training, not after
    demo = Demo(settings, recipe, report, keep, log)
    train, compress, archive = build_steps(settings, ())
    demo.stage("train", lambda: _train(demo, train[1]))
    demo.stage("compress", lambda: _run(compress, lambda: _compressed(demo)))
    demo.stage("archive", lambda: _run(archive, lambda: _archived(demo)))
    with _stack(demo) as stack:
        demo.stage("serve and route", lambda: _wait_for_stack(demo, stack))
        if recipe.experiment is not None:
            experiment = load_experiment(settings.recipe.parent / recipe.experiment)
            demo.stage("compete", lambda: _compete(demo, experiment))
            demo.stage("compare", lambda: _compare(demo, experiment))
    _print_summary(demo)


def _run(step: tuple[str, list[object]], outcome: Callable[[], str]) -> str:
    verb, arguments = step
    run_verb(verb, *arguments)
    return outcome()


def _train(demo: Demo, arguments: list[object]) -> str:
    """Trains, with one worker killed half-way; a finished run of the same recipe is reused and nobody is killed."""
    events_path = demo.settings.runs / demo.recipe.run / "log.jsonl"
    seen = len(read_events(events_path))
    training = start(command("train", *arguments), name="train", grace_s=ORPHAN_GRACE_S)
    try:
        killed_at = kill_worker_half_way(training, events_path, seen, demo.recipe.train.epochs, demo.log)
        code = training.wait()
    finally:
        training.stop()
    if code:
        raise StageFailed("train", f"exit code {code}", hint="its error stands above")
    facts = read_manifest(demo.settings.runs / demo.recipe.run, "run").facts
    if killed_at is None:
        return f"reused run {demo.recipe.run} of {facts['steps']} steps"
    return _survival(read_events(events_path)[seen:], facts, killed_at)


def _survival(events: list[dict[str, Any]], facts: dict[str, Any], killed_at: int) -> str:
    """What the kill cost, from the run's own log."""
    restarts = [event for event in events if event["event"] == "restart"]
    lost_steps = sum(int(event["steps_lost"]) for event in restarts)
    lost_s = sum(float(event["seconds_lost"]) for event in restarts)
    return (
        f"{facts['steps']} steps; worker killed at step {killed_at}: back in {lost_s:.1f} s, "
        f"{lost_steps} finished steps lost"
    )


def _compressed(demo: Demo) -> str:
    folder = demo.settings.runs / demo.recipe.run / "artifacts"
    parts = []
    for name in demo.recipe.archive.versions if demo.recipe.archive else ():
        measured = orjson.loads((folder / name / "artifact.json").read_bytes())["measurement"]
        speed = f", {measured['speedup']:.2f}x" if measured["speedup"] else ""
        warned = "".join(f" ({warning})" for warning in measured["warnings"])
        parts.append(f"{name} {measured['accuracy']:.3f}, {measured['size_bytes'] / 1e6:.2f} MB{speed}{warned}")
    return "; ".join(parts)


def _archived(demo: Demo) -> str:
    return "signed: " + ", ".join(path.name for path in archives(demo.recipe, demo.settings.store))


@contextmanager
def _stack(demo: Demo) -> Iterator[Child]:
    """The stack as a child of this demo, gone with it; released at the end when it is to be kept."""
    s = demo.settings
    folders = ["--runs", s.runs, "--store", s.store, "--keys", s.keys, "--data", s.data, "--state", s.state]
    ports = ["--port", s.port, "--serve-port", s.serve_port, "--dashboard-port", s.dashboard_port]
    stack_file(s.state).unlink(missing_ok=True)
    s.log("up").unlink(missing_ok=True)  # what is shown and told of must be of this stack
    child = start_verb("up", s.recipe, *folders, *ports, "--no-build", "--fresh", log=s.log("up"))
    try:
        yield child
    except BaseException:
        child.stop(grace_s=60)
        raise
    if demo.keep:
        child.release()
    else:
        demo.log.say("stopping everything …")
        child.stop(grace_s=60)


def _wait_for_stack(demo: Demo, stack: Child) -> str:
    log, ready = demo.settings.log("up"), stack_file(demo.settings.state)
    deadline = time.monotonic() + _STACK_TIMEOUT_S
    told = 0
    while not ready.is_file():
        told = _show_from(log, told, demo.log)
        if stack.poll() is not None or time.monotonic() > deadline:
            raise StageFailed("up", f"the stack did not come up\n{tail(log)}", hint=f"all of its log: {log}")
        time.sleep(0.2)
    _show_from(log, told, demo.log)
    served = orjson.loads((demo.settings.state / "serve.json").read_bytes())["models"]
    return "; ".join(f"{model} {', '.join(versions)}" for model, versions in served.items()) + " behind Envoy"


def _show_from(log: Path, told: int, runlog: RunLog) -> int:
    """Prints the lines of a log that were not told yet; returns how many there are."""
    lines = log.read_text().splitlines() if log.is_file() else []
    for line in lines[told:]:
        runlog.console.print(line, markup=False)
    return len(lines)


def _compete(demo: Demo, experiment: Experiment) -> str:
    """Simulated clients ask until rollout has decided, or the ramp's own time is over."""
    settings = demo.settings
    limit_s = sum(step.until.max_wait or 60.0 for step in experiment.spec.ramp) + 30
    url = f"http://127.0.0.1:{settings.port}"
    traffic = ["--rate", _RATE, "--units", _UNITS, "--seed", _SEED, "--label-delay", "2s", "--duration", f"{limit_s}s"]
    clients = start(command("simulate", settings.recipe, "--url", url, *traffic), name="simulate")
    placed = settings.experiments / f"{experiment.name}.yaml"
    told = ""
    deadline = time.monotonic() + limit_s
    try:
        while not (now := load_experiment(placed)).terminal and time.monotonic() < deadline:
            line = f"{now.progress}: {now.weights_text}"
            if line != told:
                demo.log.say(f"rollout: {line}")
                told = line
            if clients.poll() not in (None, 0):
                raise StageFailed("simulate", f"exit code {clients.poll()}", hint="its error stands above")
            time.sleep(0.5)
    finally:
        clients.stop(grace_s=20)
    outcome = f"{now.status.phase} ({now.status.reason})"
    demo.log.say(f"rollout: {now.progress}: {now.weights_text} ({now.status.reason})")
    return outcome


def _compare(demo: Demo, experiment: Experiment) -> str:
    settings = demo.settings
    run_verb(
        "compare", settings.experiments / f"{experiment.name}.yaml", "--data", settings.data, "--report", demo.report
    )
    return str(demo.report / experiment.name / "index.html")


def _print_summary(demo: Demo) -> None:
    table = Table("stage", "what came out", "seconds", title="emberline demo")
    table.columns[2].justify = "right"
    for name, outcome, seconds in demo.rows:
        table.add_row(name, outcome, f"{seconds:.1f}")
    table.add_row(
        "all", "everything is up" if demo.keep else "everything is stopped", f"{sum(r[2] for r in demo.rows):.1f}"
    )
    Console(width=None if demo.log.console.is_terminal else 110).print(table)
    summary = [
        {"stage": name, "outcome": outcome, "seconds": round(seconds, 1)} for name, outcome, seconds in demo.rows
    ]
    write_bytes(demo.report / "demo.json", orjson.dumps(summary, option=orjson.OPT_INDENT_2))
    if demo.keep:
        facts = orjson.loads(stack_file(demo.settings.state).read_bytes())
        for line in (*facts["curl"], f"page: {facts['page']}"):
            print(line)
        print("emberline down (or: make down) stops it")
