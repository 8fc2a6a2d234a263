"""Puts a version in force without an experiment, or the one before it again, with the drain that a loser gets.

A person leaves a request; the controller notes it, writes `<model>.deployed.json`, which routers follow, and lets the
version go that answered before: no traffic, nothing in flight, unregistered. While an experiment is going on for the
model it has the traffic; the request waits until that has ended or was aborted.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import orjson
from pydantic import Field

from emberline import storage
from emberline.compare.jsonlines import append_line
from emberline.errors import CorruptPaper, InvalidOption
from emberline.experiment import Deployed, Experiment, deployed_path, load_deployed
from emberline.paper import Frozen
from emberline.recipe import Name, Version
from emberline.rollout.audit import audit_path
from emberline.rollout.retire import Retirement, Servers, let_go, uses
from emberline.rollout.routers import answers_by_default, version_in_force
from emberline.route.clusters import default_cluster_name
from emberline.route.settings import Served
from emberline.serve import management

_REQUEST = ".deploy.json"


class Wish(Frozen):
    """What a person asked for.

    Attributes:
        previous: the version that answered then, where the asker knows it; else the routers are asked.
        asked: Unix time.
    """

    model: Name
    version: Version
    reason: str
    previous: str = ""
    asked: float = Field(default_factory=time.time)


def leave_wish(folder: Path, wish: Wish) -> Path:
    path = folder / f"{wish.model}{_REQUEST}"
    storage.write_bytes(path, orjson.dumps(wish.model_dump()))
    return path


def read_wishes(folder: Path) -> list[Wish]:
    """All that wait.

    Raises:
        CorruptPaper: somebody wrote one by hand and wrongly.
    """
    found = []
    for path in sorted(folder.glob(f"*{_REQUEST}")):
        try:
            found.append(Wish.model_validate(orjson.loads(path.read_bytes())))
        except FileNotFoundError:  # carried out or withdrawn since it was listed: it waits no more
            continue
        except ValueError as error:
            raise CorruptPaper(path, "no request", "model, version and reason", hint="remove the file") from error
    return found


def withdraw(folder: Path, model: str, reason: str) -> Wish:
    """Takes a waiting wish back, and notes it.

    Raises:
        InvalidOption: none waits for the model: it may have been carried out.
        CorruptPaper: what waits cannot be read.
    """
    waiting = {wish.model: wish for wish in read_wishes(folder)}
    try:
        wish = waiting[model]
        (folder / f"{model}{_REQUEST}").unlink()
    except (KeyError, FileNotFoundError) as error:
        others = ", ".join(sorted(waiting.keys() - {model})) or "none"
        hint = f"waiting: {others}; what is in force is undone by --rollback"
        required = "a model with a deployment that waits"
        raise InvalidOption("rollout", "--withdraw", model, required, hint=hint) from error
    line = {"time": time.time(), "event": "withdrawn", **wish.model_dump(), "why": reason}
    append_line(audit_path(folder, f"{model}.deployed"), line)
    return wish


def waiting_lines(folder: Path, experiments: Sequence[Experiment]) -> list[str]:
    """Each wish that waits, and for what."""
    lines = []
    for wish in read_wishes(folder):
        other = going_on(wish, experiments)
        cause = "a running rollout's next look" if other is None else f"experiment {other}, which has the traffic"
        lines.append(f"deployment {wish.model} {wish.version}: waits for {cause}  ({wish.reason})")
    return lines


def read_deployed(folder: Path) -> list[Deployed]:
    return [load_deployed(path) for path in sorted(folder.glob("*.deployed.json"))]


def rollback_of(folder: Path, model: str, reason: str) -> Wish:
    """The wish that brings back what answered before the last deployment.

    Raises:
        InvalidOption: nothing was deployed, or nobody knows what answered before.
    """
    path = deployed_path(folder, model)
    deployed = load_deployed(path) if path.is_file() else None
    if deployed is None or not deployed.previous:
        required = "a model with a version that was deployed in another's place"
        raise InvalidOption("rollout", "--rollback", model, required, hint="--deploy MODEL@VERSION names one")
    return Wish(model=model, version=deployed.previous, reason=reason, previous=deployed.version)


def going_on(wish: Wish, experiments: Sequence[Experiment]) -> str | None:
    """Name of the experiment that has the model's traffic."""
    return next((one.name for one in experiments if one.spec.model == wish.model and not one.terminal), None)


def refused(folder: Path, wish: Wish, servers: Servers) -> str | None:
    """Why a wish is dropped: what is not registered cannot answer anybody. None where it can be carried out."""
    if servers.management is None or management.describe(servers.management, wish.model, wish.version) is not None:
        return None
    why = f"{wish.version} is not registered, so nothing was changed; serve its archive, then ask again"
    line = {"time": time.time(), "event": "refused", **wish.model_dump(), "why": why}
    append_line(audit_path(folder, f"{wish.model}.deployed"), line)
    (folder / f"{wish.model}{_REQUEST}").unlink(missing_ok=True)
    return why


def carry_out(folder: Path, wish: Wish, experiments: Sequence[Experiment], route: str | None) -> Deployed:
    """Notes the decision and puts it in force; doing it again after a kill changes nothing."""
    path = deployed_path(folder, wish.model)
    before = load_deployed(path) if path.is_file() else None
    if before is None or before.asked != wish.asked:
        previous = wish.previous or _answering(wish.model, before, experiments, route)
        deployed = Deployed(
            model=wish.model,
            version=wish.version,
            previous="" if previous == wish.version else previous,
            since=time.time(),
            reason=wish.reason,
            asked=wish.asked,
        )
        line = {"time": deployed.since, "event": "deploy", **deployed.model_dump()}
        append_line(audit_path(folder, f"{wish.model}.deployed"), line)
        storage.write_bytes(path, orjson.dumps(deployed.model_dump(), option=orjson.OPT_INDENT_2))
        before = deployed
    (folder / f"{wish.model}{_REQUEST}").unlink(missing_ok=True)
    return before


def settle(deployed: Deployed, experiments: Sequence[Experiment], servers: Servers) -> tuple[Retirement, str]:
    """One round of letting the version go that answered before.

    Returns:
        How far it is, with a sentence that says why.
    """
    model, previous = deployed.model, deployed.previous
    if servers.admin is not None and not answers_by_default(model, deployed.version, admin=servers.admin):
        return "draining", f"waiting for the routers to take {model} {deployed.version}"
    if not previous or servers.management is None:
        return "kept", f"{model} {deployed.version} answers; no other version is let go"
    if management.describe(servers.management, model, deployed.version) is None:
        return "kept", f"{model} {previous} stays registered, since {deployed.version} is not"
    user = next((one.name for one in experiments if not one.terminal and uses(one, model, previous)), None)
    if user is not None:
        return "kept", f"{model} {previous} stays registered: experiment {user} uses it"
    clusters = [default_cluster_name(Served(model, previous))]
    return let_go(model, previous, clusters, servers)


def _answering(model: str, before: Deployed | None, experiments: Sequence[Experiment], route: str | None) -> str:
    """The version that answers now: the last experiment's winner, the last deployment's, else what the router says."""
    ended = [one for one in experiments if one.spec.model == model and one.terminal and one.spec.layer is None]
    last = max(ended, key=lambda one: one.status.since, default=None)
    if last is not None and (before is None or last.status.since > before.since):
        shipped = last.status.phase == "Shipped"
        return (last.spec.treatment if shipped else last.spec.control).version
    if before is not None:
        return before.version
    return version_in_force(model, route) if route is not None else ""
