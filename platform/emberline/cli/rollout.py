"""`emberline rollout`: moves traffic along each experiment's ramp, and tells why."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emberline.rollout.phases import Action


def rollout(
    *,
    experiments: Path = Path("state/experiments"),
    data: Path = Path("data"),
    route: str | None = None,
    envoy_admin: str | None = None,
    management: str | None = None,
    interval: str = "1s",
    until_done: bool = False,
    kubernetes: bool = False,
    namespace: str | None = None,
    pause: str | None = None,
    resume: str | None = None,
    abort: str | None = None,
    force: str | None = None,
    to: str | None = None,
    deploy: str | None = None,
    rollback: str | None = None,
    withdraw: str | None = None,
    reason: str | None = None,
) -> None:
    """Move traffic along each experiment's ramp on what its data say; roll back by itself.

    Stopping it, SIGKILL included, leaves traffic where it is; started again, it goes on from there.

    Args:
        experiments: Folder of experiments, with their status, audit logs and requests.
        data: Folder of exposures and outcomes.
        route: Address of the router, to see that it took a configuration.
        envoy_admin: Address of Envoy's admin interface, which sees it sooner; several, with commas between.
        management: TorchServe's management address; with it, the loser of a shipped experiment is unregistered.
        interval: Between two looks, such as 1s or 5m.
        until_done: Exit when every experiment has ended.
        kubernetes: Read Experiments from the cluster, and write their status and the routers' ConfigMap there.
        namespace: Of the Experiments, with --kubernetes; `default` unless given.
        pause: Name of an experiment to hold where it is (its guardrails still roll it back).
        resume: Name of a paused experiment to let go on.
        abort: Name of an experiment to roll back.
        force: Name of an experiment to move on whatever its numbers say (its guardrails still roll it back).
        to: With --force: number of a later step, from 1 on, or `ship`.
        deploy: MODEL@VERSION that is to answer without an experiment; what answered before is drained.
        rollback: Model that is to be answered by the version before the last --deploy.
        withdraw: Model whose --deploy or --rollback still waits and is wanted no more.
        reason: Why, for each of these; kept in the audit log.
    """
    from emberline.errors import InvalidOption
    from emberline.rollout.verb import ask, ask_to_deploy, run, withdraw_deployment

    versions = {"--withdraw": withdraw, "--deploy": deploy, "--rollback": rollback}
    others = {**versions, "--pause": pause, "--resume": resume, "--abort": abort, "--force": force, "--to": to}
    given = [option for option, value in others.items() if value is not None]
    if len(given) > 1 and given[0] in versions:
        hint = "one is asked for at a time; give the other in a command of its own"
        raise InvalidOption("rollout", given[0], others[given[0]], f"{given[0]} without {given[1]}", hint=hint)
    if withdraw is not None:
        withdraw_deployment(experiments, withdraw, reason)
        return
    if deploy is not None or rollback is not None:
        ask_to_deploy(experiments, deploy, rollback, reason)
        return

    asked: dict[Action, str | None] = {"pause": pause, "resume": resume, "abort": abort, "force": force}
    wishes = {action: name for action, name in asked.items() if name is not None}
    if wishes or reason is not None or to is not None:
        ask(experiments, wishes, reason, to)
        return
    if namespace is not None and not kubernetes:
        hint = "files have none; in a cluster, add --kubernetes"
        raise InvalidOption("rollout", "--namespace", namespace, "--kubernetes beside it", hint=hint)
    run(
        experiments,
        data,
        route=route,
        admin=envoy_admin,
        management=management,
        interval=interval,
        until_done=until_done,
        namespace=(namespace or "default") if kubernetes else None,
    )
