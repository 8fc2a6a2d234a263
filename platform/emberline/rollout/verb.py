"""What `emberline rollout` does: one controller until it is stopped, or one request left for it."""

import signal
import threading
from collections.abc import Mapping
from pathlib import Path

from emberline.client import check_url
from emberline.errors import InvalidOption, InvalidSetting, MissingFile
from emberline.experiment import Experiment, parse_duration
from emberline.recipe import parse_model
from emberline.rollout.deployments import rollback_of
from emberline.rollout.loop import Rollout
from emberline.rollout.phases import SHIP, Action
from emberline.rollout.requests import leave_request
from emberline.rollout.retire import Servers
from emberline.rollout.routers import processes
from emberline.rollout.store import FolderStore, Store
from emberline.rollout.wishes import Wish, leave_wish, withdraw
from emberline.route.settings import parse_address
from emberline.runlog import SERVER_MAX_BYTES, RunLog


def run(
    experiments: Path,
    data: Path,
    *,
    route: str | None,
    admin: str | None,
    management: str | None,
    interval: str,
    until_done: bool,
    namespace: str | None,
) -> None:
    """Runs the controller until SIGTERM or Ctrl-C, or until all is done.

    Raises:
        InvalidOption: the interval is no duration above 0, or an address is none.
        MissingFile: the folder of experiments is not there, and no cluster has them.
        EmberlineError: another controller has this folder.
    """
    interval_s = parse_duration(interval, "--interval", above=0)
    for address in processes(admin) if admin is not None else ():
        hint = "several have commas between; state/route.json has them as `admin`"
        check_url("rollout", "--envoy-admin", address, hint=hint)
    if route is not None:
        check_url("rollout", "--route", route, hint="http://127.0.0.1:8080 is where `emberline up` has its router")
    if management is not None:  # the other addresses have http://, so this one may have it, too
        management = str(parse_address(management.removeprefix("http://").rstrip("/"), "--management"))
    if namespace is None and not experiments.is_dir():
        raise MissingFile(
            experiments, "the folder of experiments", hint="`emberline up` makes it; name another by --experiments"
        )
    log = RunLog(experiments.parent / "rollout.jsonl", needed=False, max_bytes=SERVER_MAX_BYTES)
    store: Store = FolderStore(experiments)
    if namespace is not None:
        from emberline.rollout.kubernetes_store import KubernetesStore

        store = KubernetesStore.connect(namespace)
    controller = Rollout(store, experiments, data, Servers(admin, management), log, route)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    controller.run(interval_s, stop, until_done=until_done)


def ask(experiments: Path, wishes: Mapping[Action, str], reason: str | None, target: str | None = None) -> None:
    """Leaves a request for the controller.

    Raises:
        InvalidOption: not exactly one wish, no reason, a force without its target, or the experiment has ended.
        MissingFile: there is no such experiment.
    """
    if len(wishes) != 1:
        options, hint = "--pause, --resume, --abort, --force", "each with the name of an experiment"
        raise InvalidOption("rollout", options, sorted(wishes), "exactly one of them", hint=hint)
    why = _given(reason)
    ((action, name),) = wishes.items()
    experiment = _named(experiments, name)
    if experiment.terminal:
        hint = f"{name}: {experiment.progress}; --deploy and --rollback change what answers without an experiment"
        raise InvalidOption("rollout", f"--{action}", name, "an experiment that goes on", hint=hint)
    _check_target(action, target, len(experiment.spec.ramp))
    step = experiment.status.step
    if target is not None and target != SHIP and int(target) <= step + 1:
        required = f"a step after {step + 1}, where {name} is"
        raise InvalidOption("rollout", "--to", target, required, hint=f"--to {SHIP} ends it; --abort rolls it back")
    leave_request(experiments, name, action, why, target)
    RunLog().say(f"{name}: {action} is asked for; a running rollout carries it out at its next look")


def ask_to_deploy(experiments: Path, deploy: str | None, rollback: str | None, reason: str | None) -> None:
    """Leaves a request for a version to answer without an experiment, or for the one before it.

    Raises:
        InvalidOption: no MODEL@VERSION, no reason, nothing to roll back to, or one waits already.
    """
    why = _given(reason)
    wish = rollback_of(experiments, rollback, why) if rollback is not None else _wish(deploy or "", why)
    leave_wish(experiments, wish, "--deploy" if rollback is None else "--rollback")
    RunLog().say(f"{wish.model}: {wish.version} is asked for; a running rollout puts it in force at its next look")


def withdraw_deployment(experiments: Path, model: str, reason: str | None) -> None:
    """Takes back a deployment that waits.

    Raises:
        InvalidOption: no reason, or none waits for the model.
    """
    wish = withdraw(experiments, model, _given(reason))
    RunLog().say(f"{model}: {wish.version} is withdrawn; what answers stays")


def _wish(deploy: str, reason: str) -> Wish:
    model, _, version = deploy.partition("@")
    try:
        return parse_model(Wish, {"model": model, "version": version, "reason": reason}, Path("rollout --deploy"))
    except InvalidSetting as error:
        required = f"MODEL@VERSION ({error.key}: {error.required})"
        raise InvalidOption("rollout", "--deploy", deploy, required, hint="such as digits@1.1") from error


def _named(experiments: Path, name: str) -> Experiment:
    """By the name that it declares, whatever its file is called; other files may be broken."""
    found, wrong = FolderStore(experiments).experiments()
    known = {one.name: one for one in found}
    if name not in known:
        broken = "".join(f", {Path(str(error.place)).name} cannot be read" for error in wrong)
        hint = f"known here: {', '.join(sorted(known)) or 'none'}{broken}"
        raise MissingFile(experiments, f"experiment {name!r}", hint=hint)
    return known[name]


def _given(reason: str | None) -> str:
    if not reason:
        hint = '--reason "known good": months later it is all that tells why'
        raise InvalidOption("rollout", "--reason", reason, "a reason for the audit log", hint=hint)
    return reason


def _check_target(action: Action, target: str | None, num_steps: int) -> None:
    if action != "force":
        if target is not None:
            raise InvalidOption("rollout", "--to", target, f"nothing with --{action}", hint="it belongs to --force")
        return
    steps = [str(number) for number in range(2, num_steps + 1)]
    if target not in {SHIP, *steps}:
        hint = "steps are counted from 1, and the first is where each experiment begins"
        raise InvalidOption("rollout", "--to", target, " or ".join([*steps, SHIP]), hint=hint)
