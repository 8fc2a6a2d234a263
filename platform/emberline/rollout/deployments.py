"""Puts a version in force without an experiment, or the one before it again, with the drain that a loser gets.

A person leaves a wish; the controller notes it, writes `<model>.deployed.json`, which routers follow, and lets the
version go that answered before: no traffic, nothing in flight, unregistered. What the model server or the routers do
not know is refused, and what was in force stays. While an experiment is going on for the model it has the traffic; the
wish waits until that has ended or was aborted.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import orjson

from emberline import storage
from emberline.compare.jsonlines import append_line
from emberline.errors import InvalidOption
from emberline.experiment import Deployed, Experiment, deployed_path, load_deployed
from emberline.rollout.audit import audit_path, read_audit
from emberline.rollout.retire import Retirement, Servers, let_go, uses
from emberline.rollout.routers import has_deployed, refused_files, version_in_force
from emberline.rollout.wishes import Wish, drop, is_over, note_over, read_wishes, remove, sole_hand
from emberline.route.clusters import default_cluster_name
from emberline.route.settings import Served
from emberline.serve import management

_STALE_S = 10.0
"""A router looks at the folder every 0.1 s, and is busy for some seconds at most where Envoy does not take a change."""


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
    return Wish(model=model, version=deployed.previous, reason=reason)


def refused(folder: Path, wish: Wish, servers: Servers) -> str | None:
    """Why a wish is dropped: what is not registered cannot answer anybody. None where it can be carried out."""
    if servers.management is None or management.describe(servers.management, wish.model, wish.version) is not None:
        return None
    why = f"{wish.version} is not registered, so nothing was changed; serve its archive, then ask again"
    with sole_hand(folder):
        if wish not in read_wishes(folder):
            return None
        drop(folder, wish, "refused", why)
    return why


def carry_out(
    folder: Path, wish: Wish, experiments: Sequence[Experiment], servers: Servers, route: str | None
) -> Deployed | None:
    """Notes the decision and has routers follow it; doing it again after a kill changes nothing.

    Returns:
        None where the wish was withdrawn while the routers were asked.
    """
    path = deployed_path(folder, wish.model)
    before = load_deployed(path) if path.is_file() else None
    done = before is not None and before.asked == wish.asked
    previous = "" if done else _answering(folder, wish.model, before, experiments, servers=servers, route=route)
    contested = not done and _is_refused(folder, wish.model, servers, route)
    with sole_hand(folder):
        if wish not in read_wishes(folder):
            return None
        if before is None or not done:
            deployed = Deployed(
                **wish.model_dump(), previous="" if previous == wish.version else previous, since=time.time()
            )
            facts = {"before": before and before.model_dump(), "contested": contested}
            _note(folder, deployed, "deploy", **facts)
            _write(path, deployed)
            before = deployed
        remove(folder, wish)
    return before


def settle(
    folder: Path, deployed: Deployed, experiments: Sequence[Experiment], servers: Servers, route: str | None
) -> tuple[Retirement | Literal["refused"], str]:
    """One round of having routers take a version, then letting the one go that answered before.

    Returns:
        How far it is, with a sentence that says why. Refused: routers do not know it, and what they had stays.
    """
    model = deployed.model
    if (later := _last_ended(model, deployed, experiments)) is not None:
        return "kept", f"{model} is answered as experiment {later.name} ended"
    if not has_deployed(model, deployed.version, admin=servers.admin, route=route):
        waits = f"waiting for the routers to take {model} {deployed.version}"
        if not _is_refused(folder, model, servers, route):
            return "draining", waits
        if (why := _give_back(folder, deployed)) is not None:
            return "refused", why
        return "draining", f"{waits}, which they have no upstream of"
    if (servers.admin is not None or route is not None) and not _was_taken(folder, deployed):
        _note(folder, deployed, "confirmed")
    return _let_previous_go(deployed, experiments, servers)


def _is_refused(folder: Path, model: str, servers: Servers, route: str | None) -> bool:
    """Whether the router says that it cannot use what is deployed of the model."""
    return deployed_path(folder, model).name in refused_files(admin=servers.admin, route=route)


def _let_previous_go(deployed: Deployed, experiments: Sequence[Experiment], servers: Servers) -> tuple[Retirement, str]:
    model, previous = deployed.model, deployed.previous
    if not previous or servers.management is None:
        return "kept", f"{model} {deployed.version} answers; no other version is let go"
    if management.describe(servers.management, model, deployed.version) is None:
        return "kept", f"{model} {previous} stays registered, since {deployed.version} is not"
    user = next((one.name for one in experiments if not one.terminal and uses(one, model, previous)), None)
    if user is not None:
        return "kept", f"{model} {previous} stays registered: experiment {user} uses it"
    clusters = [default_cluster_name(Served(model, previous))]
    return let_go(model, previous, clusters, servers)


def _give_back(folder: Path, deployed: Deployed) -> str | None:
    """Takes back what routers refused, so that the file tells what is in force.

    Returns:
        None where it stays: written by hand, in force once (the version before it may be gone), or just written, while
        routers may still mean what the file held before.
    """
    line = next(iter(_lines(folder, deployed, "deploy")[::-1]), {"contested": False})
    if "before" not in line or _was_taken(folder, deployed):
        return None
    if line["contested"] and time.time() - deployed.since < _STALE_S:
        return None
    why = f"the routers have no upstream of {deployed.version}, so what answered stays; start them with one, ask again"
    path = deployed_path(folder, deployed.model)
    with sole_hand(folder):
        wish = Wish.model_validate({key: line[key] for key in Wish.model_fields})
        if not is_over(folder, wish.model, wish.asked):
            note_over(folder, wish, "refused", why)
        if line["before"] is None:
            path.unlink(missing_ok=True)
        else:
            _write(path, Deployed.model_validate(line["before"]))
    return why


def _answering(
    folder: Path,
    model: str,
    before: Deployed | None,
    experiments: Sequence[Experiment],
    *,
    servers: Servers,
    route: str | None,
) -> str:
    """The version that answers now: the last experiment's winner, the last deployment's, else what the router says."""
    if (last := _last_ended(model, before, experiments)) is not None:
        shipped = last.status.phase == "Shipped"
        return (last.spec.treatment if shipped else last.spec.control).version
    if before is not None:
        taken = _was_taken(folder, before) or has_deployed(model, before.version, admin=servers.admin, route=route)
        return before.version if taken else before.previous
    return version_in_force(model, admin=servers.admin, route=route)


def _last_ended(model: str, deployed: Deployed | None, experiments: Sequence[Experiment]) -> Experiment | None:
    """The experiment that decides for the model since it ended, which was after the deployment."""
    ended = [one for one in experiments if one.spec.model == model and one.terminal and one.spec.layer is None]
    last = max(ended, key=lambda one: one.status.since, default=None)
    return last if last is not None and (deployed is None or last.status.since > deployed.since) else None


def _was_taken(folder: Path, deployed: Deployed) -> bool:
    return bool(_lines(folder, deployed, "confirmed"))


def _lines(folder: Path, deployed: Deployed, event: str) -> list[dict[str, Any]]:
    """Lines of the audit log of this very deployment."""
    lines = read_audit(folder, f"{deployed.model}.deployed")
    return [line for line in lines if line["event"] == event and line.get("asked") == deployed.asked]


def _note(folder: Path, deployed: Deployed, event: str, **facts: object) -> None:
    line = {"time": time.time(), "event": event, **deployed.model_dump(), **facts}
    append_line(audit_path(folder, f"{deployed.model}.deployed"), line)


def _write(path: Path, deployed: Deployed) -> None:
    storage.write_bytes(path, orjson.dumps(deployed.model_dump(), option=orjson.OPT_INDENT_2))
