"""Brings everything up for a recipe: builds what is missing, starts the stack, stays until told to stop."""

import time

from emberline.experiment import Experiment, load_experiment, status_path, to_yaml
from emberline.process import free_port
from emberline.recipe import Recipe, load_recipe
from emberline.runlog import RunLog
from emberline.storage import write_bytes
from emberline.up.examples import curl_lines, page_address
from emberline.up.settings import (
    Settings,
    archives,
    build_steps,
    dashboard_arguments,
    rollout_arguments,
    route_arguments,
    serve_arguments,
)
from emberline.up.stack import Service, Stack, claim, publish, stop_signals, terminable
from emberline.up.verbs import run_verb


def up(settings: Settings, overrides: tuple[str, ...] = (), *, build: bool = True, fresh: bool = False) -> None:
    """Runs the stack in the foreground until SIGTERM or Ctrl-C.

    Args:
        build: first call train, compress and archive, which reuse what is there.
        fresh: forget how far the experiment had come, so that it starts again.

    Raises:
        EmberlineError: a port is taken, a stack runs already, or a verb failed.
    """
    log = RunLog(settings.state / "up.jsonl")
    recipe = load_recipe(settings.recipe, overrides)
    archives(recipe, settings.store)  # no archive section: said before an hour of training, not after
    with claim(settings):
        if build:
            with terminable():  # Ctrl-C ends the verb that runs, and this one
                for verb, arguments in build_steps(settings, overrides):
                    run_verb(verb, *arguments)
        _run_stack(settings, recipe, log, fresh=fresh)


def _run_stack(settings: Settings, recipe: Recipe, log: RunLog, *, fresh: bool) -> None:
    experiment = _place_experiment(settings, recipe, log, fresh=fresh)
    with stop_signals() as stop:
        stack = Stack(settings, log)
        started = time.monotonic()
        try:
            for service in _services(settings, recipe, experiment):
                if stop.is_set():
                    return
                log.say(f"starting {service.verb} …")
                stack.start(service)
            log.say(f"up after {time.monotonic() - started:.1f} s; Ctrl-C or `emberline down` stops it")
            examples = curl_lines(settings, recipe)
            page = page_address(settings)
            for line in (*examples, f"page: {page}"):
                log.say(line)
            publish(settings, experiment=experiment.name if experiment else None, curl=examples, page=page)
            stack.watch(stop)
        finally:
            log.say("stopping: draining what is in flight …")
            stack.stop()
            log.say("stopped")


def _services(settings: Settings, recipe: Recipe, experiment: Experiment | None) -> list[Service]:
    """The verbs that stay, in the order of their start."""
    state, admin_port = settings.state, free_port()  # the same after the router was started again: rollout asks there
    services = [
        Service("serve", lambda: serve_arguments(settings, recipe), state / "serve.json"),
        Service("route", lambda: route_arguments(settings, recipe, admin_port), state / "route.json"),
        Service("dashboard", lambda: dashboard_arguments(settings), state / "dashboard.json"),
    ]
    if experiment is not None:
        services.append(Service("rollout", lambda: rollout_arguments(settings, admin_port), None))
    return services


def _place_experiment(settings: Settings, recipe: Recipe, log: RunLog, *, fresh: bool) -> Experiment | None:
    """Puts the recipe's experiment where route and rollout read it; a changed one starts anew, and that is said."""
    settings.experiments.mkdir(parents=True, exist_ok=True)
    if recipe.experiment is None:
        return None
    experiment = load_experiment(settings.recipe.parent / recipe.experiment)
    placed = settings.experiments / f"{experiment.name}.yaml"
    status = status_path(settings.experiments, experiment.name)
    changed = placed.is_file() and load_experiment(placed).spec != experiment.spec
    if changed or fresh:
        log.say(f"experiment {experiment.name} starts anew" + (": its specification changed" if changed else ""))
        status.unlink(missing_ok=True)
    write_bytes(placed, to_yaml(experiment).encode())
    return experiment
